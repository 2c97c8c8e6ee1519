use std::future::Future;

use futures_util::future::BoxFuture;

use super::answer::Answer;
use super::error::CallError;
use super::{Call, FromCall, IntoAnswer};

/// A function that answers calls: async, with up to eight arguments that are [`FromCall`], and an answer that is
/// [`IntoAnswer`].
///
/// `Types` are the function's arguments and the way it answers, and are never written.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler of a plugin's router",
    label = "not a handler for a router with the state `{S}`",
    note = "a handler is an `async fn` or a closure that returns a future, which is `Send`, as are its arguments",
    note = "each argument is `Input<T>` with `T: serde::Deserialize`, `State<T>`, `Caller`, `Messages<T>`, `Extension<T>`, `Bytes`, or implements `FromCall`",
    note = "it returns `Result<T, E>` with `T: serde::Serialize` and `E: IntoCallError`, a `Stream` of such results, `Output(value)`, text or `()`",
    note = "`State<T>` takes a router that has that state: `Router::with_state(state)`"
)]
pub trait Handler<Types, S>: Send + Sync + 'static {
    /// Begins to answer `call`.
    fn call(&self, call: Call, state: &S) -> BoxFuture<'static, Result<Answer, CallError>>;
}

macro_rules! handlers {
    ($([$($argument:ident)*])*) => { $(
        #[allow(non_snake_case, unused_mut, unused_variables, reason = "it has up to eight arguments")]
        impl<F, Fut, Shape, S, $($argument),*> Handler<(Shape, $($argument,)*), S> for F
        where
            F: Fn($($argument),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output: IntoAnswer<Shape>> + Send + 'static,
            $($argument: FromCall<S>,)*
        {
            fn call(&self, mut call: Call, state: &S) -> BoxFuture<'static, Result<Answer, CallError>> {
                let mut arguments = || Ok(($($argument::from_call(&mut call, state)?,)*));
                match arguments() {
                    Ok(($($argument,)*)) => {
                        let answer = self($($argument),*);
                        Box::pin(async move { answer.await.into_answer() })
                    }
                    Err(error) => Box::pin(std::future::ready(Err(error))),
                }
            }
        }
    )* };
}

handlers! {
    []
    [A]
    [A B]
    [A B C]
    [A B C D]
    [A B C D E]
    [A B C D E G]
    [A B C D E G H]
    [A B C D E G H I]
}

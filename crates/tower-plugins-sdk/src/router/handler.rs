use std::future::{Future, ready};

use super::answer::IntoAnswer;
use super::error::CallError;
use super::methods::Endpoint;
use super::{Call, FromCall};

/// A function that answers calls: async, of up to eight arguments.
///
/// `Args` are its arguments, as a tuple, and are never written. [`Router::method`](super::Router::method) asks for
/// arguments that are [`FromCall`] and an answer that is [`IntoAnswer`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler of a plugin's router",
    label = "not a handler",
    note = "a handler is an `async fn`, or a closure that returns a future, of up to eight arguments",
    note = "what it holds over an `.await` must be `Send`"
)]
pub trait Handler<Args>: Send + Sync + 'static {
    /// What it returns.
    type Future: Future + Send + 'static;

    /// Begins to answer a call of which `args` were made.
    fn call(&self, args: Args) -> Self::Future;
}

/// `handler` as all handlers are kept.
pub(super) fn endpoint<H, Args, Shape, S>(
    handler: H,
    state: impl AsRef<S> + Send + Sync + 'static,
) -> Endpoint
where
    H: Handler<Args>,
    Args: FromCall<S>,
    <H::Future as Future>::Output: IntoAnswer<Shape>,
{
    Box::new(
        move |mut call| match Args::from_call(&mut call, state.as_ref()) {
            Err(error) => Box::pin(ready(Err(error.before_the_handler()))),
            Ok(args) => {
                let answer = handler.call(args);
                Box::pin(async move { answer.await.into_answer() })
            }
        },
    )
}

macro_rules! functions {
    ($([$($argument:ident)*])*) => { $(
        impl<F, Fut, $($argument),*> Handler<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> Fut + Send + Sync + 'static,
            Fut: Future + Send + 'static,
        {
            type Future = Fut;

            #[allow(non_snake_case, reason = "an argument is named as its type")]
            fn call(&self, ($($argument,)*): ($($argument,)*)) -> Fut {
                self($($argument),*)
            }
        }

        #[allow(unused_variables, clippy::unused_unit, reason = "there may be no argument")]
        impl<S, $($argument: FromCall<S>),*> FromCall<S> for ($($argument,)*) {
            fn from_call(call: &mut Call, state: &S) -> Result<Self, CallError> {
                Ok(($($argument::from_call(call, state)?,)*))
            }
        }
    )* };
}

functions! {
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

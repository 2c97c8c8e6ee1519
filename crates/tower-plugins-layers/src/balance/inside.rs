//! Layers that say something of an endpoint, and do nothing with its calls.

/// Has `$name` hand calls on to its `inner` as they are, in both forms.
macro_rules! calls_inside {
    ($name:ident) => {
        impl<S: ::tower_service::Service<R>, R> ::tower_service::Service<R> for $name<S> {
            type Response = S::Response;
            type Error = S::Error;
            type Future = S::Future;

            fn poll_ready(
                &mut self,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<Result<(), S::Error>> {
                self.inner.poll_ready(cx)
            }

            fn call(&mut self, request: R) -> S::Future {
                self.inner.call(request)
            }
        }

        impl<'a, S, R> ::tower_service::Service<R> for &'a $name<S>
        where
            &'a S: ::tower_service::Service<R>,
        {
            type Response = <&'a S as ::tower_service::Service<R>>::Response;
            type Error = <&'a S as ::tower_service::Service<R>>::Error;
            type Future = <&'a S as ::tower_service::Service<R>>::Future;

            fn poll_ready(
                &mut self,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<Result<(), Self::Error>> {
                (&self.inner).poll_ready(cx)
            }

            fn call(&mut self, request: R) -> Self::Future {
                (&self.inner).call(request)
            }
        }
    };
}

pub(super) use calls_inside;

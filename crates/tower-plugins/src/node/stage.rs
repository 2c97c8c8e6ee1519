//! A place in the stack for a layer that a config may leave out.

/// Makes services `Name`, each a [`Maybe`](tower_plugins_layers::Maybe): the layer over the service below
/// it, or that service alone.
///
/// Each is a type of its own, so that the compiler proves it once. As one nested type the stack would be
/// proved with and without each of its layers, which doubles with every one.
macro_rules! stages {
    ($($name:ident: $layer:ty => $inner:ty, of $body:ty;)*) => {$(
        #[derive(Debug)]
        pub(super) struct $name(::tower_plugins_layers::Maybe<$layer, $inner>);

        impl $name {
            /// What puts `layer`, if there is one, around a service.
            pub(super) fn of(layer: Option<$layer>) -> impl Fn($inner) -> Self + Clone {
                use ::tower::Layer;
                let layer = ::tower_plugins_layers::Optional::new(layer);
                move |inner| Self(layer.layer(inner))
            }
        }

        impl<'a> ::tower_service::Service<::http::Request<$body>> for &'a $name {
            type Response = <&'a ::tower_plugins_layers::Maybe<$layer, $inner>
                as ::tower_service::Service<::http::Request<$body>>>::Response;
            type Error = ::tower_plugins_layers::BoxError;
            type Future = <&'a ::tower_plugins_layers::Maybe<$layer, $inner>
                as ::tower_service::Service<::http::Request<$body>>>::Future;

            fn poll_ready(
                &mut self,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<Result<(), Self::Error>> {
                (&self.0).poll_ready(cx)
            }

            fn call(&mut self, request: ::http::Request<$body>) -> Self::Future {
                (&self.0).call(request)
            }
        }
    )*};
}

/// Has these of the [`stages`] stand in a balancer.
macro_rules! members {
    ($($name:ident),*) => {$(
        impl ::tower_plugins_layers::balance::Member for $name {
            fn load(&self, now: ::tokio::time::Instant) -> f64 {
                self.0.load(now)
            }

            fn is_available(&self, now: ::tokio::time::Instant) -> bool {
                self.0.is_available(now)
            }

            fn takes_retry(&self, now: ::tokio::time::Instant) -> bool {
                self.0.takes_retry(now)
            }

            fn retry_after(&self, now: ::tokio::time::Instant) -> Option<::std::time::Duration> {
                self.0.retry_after(now)
            }

            fn is_ejected(&self, now: ::tokio::time::Instant) -> bool {
                self.0.is_ejected(now)
            }

            fn ramp(&self, now: ::tokio::time::Instant) -> f64 {
                self.0.ramp(now)
            }

            fn is_back(&self, now: ::tokio::time::Instant) -> bool {
                self.0.is_back(now)
            }

            fn in_flight(&self) -> usize {
                self.0.in_flight()
            }

            fn rtt(&self, now: ::tokio::time::Instant) -> ::std::time::Duration {
                self.0.rtt(now)
            }

            fn weighted_load(&self, now: ::tokio::time::Instant, weight: f64) -> f64 {
                self.0.weighted_load(now, weight)
            }
        }
    )*};
}

pub(super) use {members, stages};

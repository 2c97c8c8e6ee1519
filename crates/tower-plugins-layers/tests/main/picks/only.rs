//! Calls that are for one endpoint.

use std::sync::Arc;

use tower_plugins_layers::CallContext;
use tower_plugins_layers::balance::Strategy;

use super::*;

fn to(key: impl Into<Arc<str>>) -> Request<()> {
    let mut request = Request::new(());
    CallContext::new().endpoint(key.into()).attach(&mut request);
    request
}

#[tokio::test(start_paused = true)]
async fn a_call_for_one_endpoint_goes_there_whatever_else_says() {
    let spots = Spot::many(5);
    let meta = |n| EndpointMeta::new().priority(n as u32);
    for strategy in [Strategy::PeakEwma, Strategy::RoundRobin, Strategy::Maglev] {
        let balance = balance(strategy, &spots, meta);
        // It says for itself what it makes of a call while it is out.
        spots[3].set_up(false);
        spots[3].set_ejected(true);
        for n in 0..5 {
            assert_eq!(try_send(&balance, to(format!("spot {n}"))).unwrap(), n);
        }
        let error = try_send(&balance, to("spot 5")).unwrap_err();
        assert_eq!(Reason::of(&*error), Some(Reason::NoEndpoint));
    }
}

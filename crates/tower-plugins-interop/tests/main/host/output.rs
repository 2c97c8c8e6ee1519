//! What a plugin prints and logs.

use std::sync::{Arc, Mutex};

use tower_plugins::Plugins;
use tower_plugins::transport::{Output, OutputStream};
use tower_plugins_interop::peer::{Sink, WriteRequest};
use tower_plugins_interop::{Version, go, pattern};

use super::{doubled, keys, peer, start_with, within};
use crate::support::{FLOOD, MODES};

#[tokio::test]
async fn floods_of_ten_mebibytes_arrive_byte_by_byte_and_hold_up_nothing() {
    for version in [Version::V1_4_10, Version::V1_8_0] {
        let Some(program) = go(version) else { return };
        for mode in MODES.into_iter().filter(|mode| mode.is_of(version)) {
            let printed = Arc::<Mutex<[Vec<u8>; 2]>>::default();
            let builder = Plugins::builder().output("p", {
                let printed = Arc::clone(&printed);
                move |output: Output| {
                    let index = usize::from(output.stream == OutputStream::Stderr);
                    printed.lock().unwrap()[index].extend_from_slice(&output.data);
                }
            });
            let keys = format!("{}, {}", keys(&program, &[]), mode.key());
            let plugins = start_with(builder, &keys).await;
            let length = i64::try_from(FLOOD).unwrap();
            for sink in [Sink::Stdout, Sink::Stderr, Sink::RawStdout, Sink::RawStderr] {
                let sink = sink.into();
                within(peer(&plugins).write(WriteRequest { sink, length }))
                    .await
                    .unwrap();
                assert_eq!(doubled(&plugins, 2).await.unwrap(), 4);
            }
            within(plugins.shutdown(super::BOUND)).await.unwrap();
            let printed = printed.lock().unwrap();
            for bytes in &*printed {
                assert_eq!(bytes.len(), FLOOD, "{} {mode:?}", version.name());
                assert!(*bytes == pattern(FLOOD), "{} {mode:?}", version.name());
            }
        }
    }
}

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use tower_plugins::config::Format;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Corpus::Reject;
    };
    tower_plugins_fuzz::config(text, Format::Yaml);
    Corpus::Keep
});

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};

#[path = "../src/handshake.rs"]
mod handshake;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Corpus::Reject;
    };
    handshake::line(text);
    Corpus::Keep
});

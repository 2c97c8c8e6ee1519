//! What a file is that was to be run, for a message.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What stands at the beginning of a program.
const HEAD: usize = 20;

/// What there is at `path`, in a sentence: its mode, its owner, and for which kind of machine it is.
pub(in crate::transport) fn describe(path: &Path) -> String {
    let mut text = path.display().to_string();
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return format!("{text}: {error}"),
    };
    let (mode, user, group) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    let _ = write!(text, " has mode {mode:04o} and owner {user}:{group}");
    if !metadata.is_file() {
        text.push_str(", and is not a file");
        return text;
    }
    let mut head = Vec::with_capacity(HEAD);
    let read = File::open(path).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
    let this = (std::env::consts::OS, std::env::consts::ARCH);
    let _ = match read {
        Ok(_) => write!(
            text,
            ", is {}; this machine is {} on {}",
            kind(&head),
            this.0,
            this.1
        ),
        Err(error) => write!(text, ", and cannot be read: {error}"),
    };
    text
}

/// What begins with `head`.
fn kind(head: &[u8]) -> String {
    let at = |index: usize| head.get(index).copied().unwrap_or_default();
    match head {
        [] => "empty".to_owned(),
        [b'#', b'!', ..] => "a script".to_owned(),
        [0x7f, b'E', b'L', b'F', ..] => {
            let machine = match at(5) {
                2 => u16::from_be_bytes([at(18), at(19)]),
                _ => u16::from_le_bytes([at(18), at(19)]),
            };
            format!(
                "a program for Linux or another Unix (ELF) on {}",
                of_elf(machine)
            )
        }
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] => {
            let machine = match u32::from_le_bytes([at(4), at(5), at(6), at(7)]) {
                0x0100_0007 => "x86_64",
                0x0100_000c => "aarch64",
                _ => "another machine",
            };
            format!("a program for macOS (Mach-O) on {machine}")
        }
        [0xca, 0xfe, 0xba, 0xbe, ..] => {
            "a program for macOS (Mach-O) on several machines".to_owned()
        }
        [b'M', b'Z', ..] => "a program for Windows (PE)".to_owned(),
        _ => "no program of a kind that is known, and no script, which begins with #! and its interpreter".to_owned(),
    }
}

fn of_elf(machine: u16) -> String {
    match machine {
        0x03 => "x86".to_owned(),
        0x28 => "arm".to_owned(),
        0x3e => "x86_64".to_owned(),
        0xb7 => "aarch64".to_owned(),
        0xf3 => "riscv64".to_owned(),
        other => format!("machine {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_begins_with_says_what_it_is() {
        let elf = |machine| {
            let mut head = [0; HEAD];
            head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
            head[18] = machine;
            kind(&head)
        };
        assert!(elf(0xb7).ends_with("(ELF) on aarch64"));
        assert!(elf(0x3e).ends_with("(ELF) on x86_64"));
        assert_eq!(kind(b"#!/bin/sh\n"), "a script");
        assert_eq!(kind(b"MZ"), "a program for Windows (PE)");
        assert!(kind(&[0xcf, 0xfa, 0xed, 0xfe, 0x0c, 0, 0, 1]).ends_with("(Mach-O) on aarch64"));
        assert_eq!(kind(b""), "empty");
        assert!(kind(b"hello").contains("begins with #!"));
    }

    #[test]
    fn a_file_is_described_by_its_mode_and_its_owner() {
        let own = std::env::current_exe().unwrap();
        let said = describe(&own);
        assert!(said.contains(" has mode 0") && said.contains("ELF") || !cfg!(target_os = "linux"));
        let none = describe(Path::new("/nowhere/at-all"));
        assert!(none.starts_with("/nowhere/at-all: "), "{none}");
    }
}

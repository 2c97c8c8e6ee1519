use super::{Block, Key, Kind, key};

/// As many targets as a split may have.
pub(in super::super) const MOST_TARGETS: usize = 32;

const PERCENT: Key = key(
    "percent",
    Kind::Number(0.0, 100.0),
    "required",
    "5",
    "how many of 100 calls go there; 0.01 is one of 10,000",
);

pub(in super::super) static SPLIT: Block = Block {
    name: "split",
    about: "A part of the calls goes to another plugin, or to several, after what this one asks of callers: `authorize`, the deadline and \
            `filter` are its, all else is the other's. The other's `authorize` asks only of calls whose caller this one does not know, and \
            lets in the others; its deadline counts too. `fallback` is for both. A call that was sent elsewhere is not split \
            there again, and a config whose splits lead back to where they began is refused.",
    keys: &[
        key(
            "to",
            Kind::Text,
            "none",
            r#""search-next""#,
            "the other plugin; a config in which there is none of that name is refused. It takes `percent`, and stands in the place of `targets`",
        ),
        Key {
            default: "none",
            about: "how many of 100 calls go to `to`; 0.01 is one of 10,000",
            ..PERCENT
        },
        key(
            "targets",
            Kind::Targets,
            "none",
            r#"[{ "plugin": "search-a", "percent": 10 }, { "plugin": "search-b", "percent": 5 }]"#,
            "several other plugins, at most 32, in the place of `to` and `percent`. Together they have at most 100; what is left stays here",
        ),
        key(
            "hash_on",
            Kind::Text,
            "chance",
            r#""header:x-user""#,
            "where the key of a call is, `header:NAME` or `cookie:NAME`: calls with the same one go the same way, in every process, and stay there when `percent` grows. Of several targets each has a range of the keys, in their order: those of the last stay there when its part grows, and where another's does the ranges after it move. A call without it goes by chance",
        ),
    ],
    gone: &[],
};

pub(in super::super) static TARGET: Block = Block {
    name: "target",
    about: "One of the plugins of a `split`.",
    keys: &[
        key(
            "plugin",
            Kind::Text,
            "required",
            r#""search-next""#,
            "the other plugin, which is named once; a config in which there is none of that name is refused",
        ),
        PERCENT,
    ],
    gone: &[(
        "weight",
        "is `percent` here, of all calls: what is left of 100 stays with this plugin",
    )],
};

pub(in super::super) static SHADOW: Block = Block {
    name: "shadow",
    about: "Another plugin gets copies of the calls that `authorize` and `filter` let in, and its answers are dropped. The other's `authorize` asks only of those whose \
            caller this one does not know. A copy is sent when \
            the call's body has been read to its end; the call neither waits for it nor fails for it. A copy is not copied \
            again, nor split.",
    keys: &[
        key(
            "to",
            Kind::Text,
            "required",
            r#""search-next""#,
            "the other plugin; a config in which there is none of that name is refused",
        ),
        key(
            "percent",
            Kind::Number(0.0, 100.0),
            "100",
            "10",
            "how many of 100 calls are copied",
        ),
        key(
            "idempotent_only",
            Kind::Bool,
            "true",
            "false",
            "whether only calls are copied that may be repeated: by their method, an `idempotency-key`, or a typed call that says so. A copy of another does twice what it does",
        ),
        key(
            "max_concurrent",
            Kind::Integer(1, 100_000),
            "16",
            "64",
            "how many copies may be under way at once; calls beyond are not copied. A body is copied up to `retry.max_replay_bytes` (64 KiB where retry is off), and a call with a larger one is not",
        ),
        key(
            "timeout",
            Kind::Timeout,
            "30s",
            r#""5s""#,
            "how long a copy may take, to the end of its answer",
        ),
    ],
    gone: &[],
};

use super::{Block, Kind, key};

pub(in super::super) static DNS: Block = Block {
    name: "dns",
    about: "How names are looked up of endpoints such as `dns:///search.internal:8080`. The last answer stands until there is another, of IPv4 and of IPv6 each for itself.",
    keys: &[
        key(
            "min_ttl",
            Kind::Timeout,
            "5s",
            r#""1s""#,
            "the shortest time between two lookups, however soon an answer is out of date: a list that flaps changes no more often. After a lookup that failed, or of which a part did, it doubles with each, up to `max_ttl`",
        ),
        key(
            "max_ttl",
            Kind::Timeout,
            "5m",
            r#""1m""#,
            "the longest time between two lookups, however long an answer is valid",
        ),
        key(
            "timeout",
            Kind::Timeout,
            "5s",
            r#""2s""#,
            "how long a lookup may take",
        ),
        key(
            "max_endpoints",
            Kind::Integer(1, 1_024),
            "128",
            "16",
            "how many endpoints of an answer are taken, in the order of priority and address; a longer one is logged",
        ),
        key(
            "family",
            Kind::Word(&["any", "ipv4", "ipv6"]),
            "any",
            r#""ipv4""#,
            "addresses of which kind",
        ),
    ],
    gone: &[],
};

//! Which version of the program's own protocol both sides speak.

/// What a host writes into [`env::PROTOCOL_VERSIONS`](super::env::PROTOCOL_VERSIONS): `versions`, with commas between.
///
/// ```
/// use tower_plugins_proto::go_plugin::offer_versions;
///
/// assert_eq!(offer_versions([5, 6]), "5,6");
/// ```
#[must_use]
pub fn offer_versions(versions: impl IntoIterator<Item = u32>) -> String {
    let versions: Vec<_> = versions
        .into_iter()
        .map(|version| version.to_string())
        .collect();
    versions.join(",")
}

/// The version that a plugin with the versions `own` serves to a host that wrote `offered` into
/// [`env::PROTOCOL_VERSIONS`](super::env::PROTOCOL_VERSIONS): the highest that both have.
///
/// If they have none in common, or the host said nothing, it is the plugin's lowest: the host then says what both have.
/// What is no number in `offered` is skipped. `None` only if `own` is empty.
///
/// ```
/// use tower_plugins_proto::go_plugin::choose_version;
///
/// assert_eq!(choose_version([4, 5, 6], Some("7,5,6")), Some(6));
/// assert_eq!(choose_version([4, 5], Some("7")), Some(4));
/// assert_eq!(choose_version([4, 5], None), Some(4));
/// ```
#[must_use]
pub fn choose_version(own: impl IntoIterator<Item = u32>, offered: Option<&str>) -> Option<u32> {
    let offered: Vec<u32> = offered
        .unwrap_or_default()
        .split(',')
        .filter_map(|version| version.trim().parse().ok())
        .collect();
    let mut lowest = None;
    let mut common = None;
    for version in own {
        lowest = Some(lowest.map_or(version, |lowest: u32| lowest.min(version)));
        if offered.contains(&version) {
            common = common.max(Some(version));
        }
    }
    common.or(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_wins_whatever_the_order() {
        assert_eq!(choose_version([6, 4, 5], Some("5,4")), Some(5));
        assert_eq!(choose_version([4, 5, 6], Some("4, 5 ,9")), Some(5));
        // 0 is a version as any other.
        assert_eq!(choose_version([0, 3], Some("0")), Some(0));
    }

    #[test]
    fn without_one_in_common_it_is_the_lowest_own() {
        assert_eq!(choose_version([6, 4, 5], Some("1")), Some(4));
        assert_eq!(choose_version([6, 4], Some("")), Some(4));
        assert_eq!(choose_version([6, 4], Some("six,-4,4.0")), Some(4));
        assert_eq!(choose_version([], Some("4")), None);
    }
}

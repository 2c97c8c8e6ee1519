//! The known word that was most likely meant.

/// The word of `known` that `word` was most likely meant to be, if one is near.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong: enough for a slip, too few for another word.
    let near = |candidate: &str| word.len().max(candidate.len()).div_ceil(3);
    // A key may be as long as the file: the distance is only worth its time for short words.
    known
        .into_iter()
        .filter(|_| word.len() <= 64)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= near(candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance, in bytes, one row at a time.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_another_word_finds_none() {
        let known = ["timeout", "retry", "request_timeout", "enabled"];
        assert_eq!(nearest("tiemout", known), Some("timeout"));
        assert_eq!(nearest("retries", known), Some("retry"));
        assert_eq!(nearest("request_timout", known), Some("request_timeout"));
        assert_eq!(nearest("labels", known), None);
        assert_eq!(nearest(&"x".repeat(1_000_000), known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}

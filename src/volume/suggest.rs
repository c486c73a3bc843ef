//! Suggestions for mistyped names: "did you mean …?"

/// Returns ` (did you mean "…"?)` when one of `known` resembles `given`, else nothing.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&given.to_lowercase(), candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| format!(" (did you mean \"{candidate}\"?)"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_word_is_suggested_and_a_dissimilar_one_is_not() {
        assert_eq!(
            did_you_mean("profil", ["profile", "mode"]),
            " (did you mean \"profile\"?)"
        );
        assert_eq!(did_you_mean("xyz", ["profile", "mode"]), "");
    }
}

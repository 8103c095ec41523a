//! "Did you mean": the known name nearest to one that is not known.

/// ` (did you mean ..?)` when one of `known` is near enough to `word` to be a slip of the hand, else nothing.
pub(super) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    // Longer than any known name: not worth comparing, and a body could make it costly.
    if word.len() > 64 {
        return String::new();
    }
    let lower = word.to_lowercase();
    let near = known.into_iter().map(|name| (distance(&lower, &name.to_lowercase()), name)).min_by_key(|(d, _)| *d);
    match near {
        Some((d, name)) if d <= 1 + name.len() / 4 || (name.len() >= 3 && lower.starts_with(name)) => {
            format!(" (did you mean `{name}`?)")
        }
        _ => String::new(),
    }
}

/// Edit distance: insert, delete, replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
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
    fn hints() {
        assert_eq!(hint("tmiezone", ["timezone", "rules"]), " (did you mean `timezone`?)");
        assert_eq!(hint("monday", ["mon", "tue"]), " (did you mean `mon`?)");
        assert_eq!(hint("Mon", ["mon", "tue"]), " (did you mean `mon`?)");
        assert_eq!(hint("colour", ["timezone", "rules"]), "");
        assert_eq!((distance("", "abc"), distance("abc", "abc"), distance("abcd", "acb")), (3, 0, 2));
    }
}

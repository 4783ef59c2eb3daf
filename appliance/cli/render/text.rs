//! Text of unknown length and origin, made fit for a terminal.

const CUT: &str = "...";

/// `text` on one line without anything that could steer a terminal: an identity is chosen by the
/// peer, and an escape sequence in it must stay harmless.
pub(in crate::cli) fn clean(text: &str) -> String {
    let shown = |c: char| matches!(c, ' '..='~') || c.is_alphanumeric();
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if shown(c) { cleaned.push(c) } else { cleaned.extend(c.escape_default()) }
    }
    cleaned
}

/// [`clean`] for a text of several lines.
pub(in crate::cli) fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// Columns that `text` takes.
pub(super) fn columns(text: &str) -> usize {
    text.chars().count()
}

/// `text` in at most `width` columns, cut visibly.
pub(super) fn fit(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(CUT.len());
    let cut: String = text.chars().take(kept).collect();
    format!("{}{CUT}", cut.trim_end()).chars().take(width).collect()
}

/// `text` broken at spaces into at most `lines_max` lines of at most `width` columns; what does not
/// fit is cut visibly.
pub(super) fn wrap(text: &str, width: usize, lines_max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let full = lines.len() >= lines_max;
        match lines.last_mut() {
            Some(line) if columns(line).saturating_add(columns(word)) < width => {
                line.push(' ');
                line.push_str(word);
            }
            // The last line takes the rest and is cut below.
            Some(line) if full => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| fit(line, width)).collect()
}

/// As many of `names` as fit `width` columns, the first one always, and how many there are more.
pub(super) fn some_of(names: &[String], width: usize) -> String {
    let mut shown = names.join(", ");
    let mut more = String::new();
    // No more names than columns can be shown.
    let mut count = names.len().min(width.max(1));
    while columns(&shown).saturating_add(columns(&more)) > width && count > 1 {
        count = count.saturating_sub(1);
        shown = names.get(..count).unwrap_or_default().join(", ");
        more = format!(" and {} more", names.len().saturating_sub(count));
    }
    fit(&format!("{shown}{more}"), width)
}

/// "1 target", "2 targets".
pub(in crate::cli) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_become_visible_and_letters_stay() {
        assert_eq!(clean("\u{1b}[2Jgone\r\n"), "\\u{1b}[2Jgone\\r\\n");
        assert_eq!(clean("\u{202e}txt büro-ß"), "\\u{202e}txt büro-ß");
        assert_eq!(clean_lines("a\u{7}\nb\n"), "a\\u{7}\nb");
    }

    #[test]
    fn cut_text_says_so_and_fits() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdefg", 6), "abc...");
        assert_eq!(fit("abcdefg", 2), "..");
    }

    #[test]
    fn wrapped_text_keeps_its_words_and_its_limits() {
        assert_eq!(wrap("one two three", 7, 9), ["one two", "three"]);
        assert_eq!(wrap("one two three four", 7, 2), ["one two", "thre..."]);
        assert_eq!(wrap("abcdefghijkl m", 8, 3), ["abcde...", "m"]);
    }

    #[test]
    fn a_long_list_ends_with_a_count() {
        let names: Vec<String> = (1..=9).map(|n| format!("web{n}")).collect();
        assert_eq!(some_of(&names[..3], 20), "web1, web2, web3");
        assert_eq!(some_of(&names, 22), "web1, web2 and 7 more");
        assert_eq!(some_of(&names, 80), names.join(", "));
        assert_eq!(some_of(&[], 80), "");
    }
}

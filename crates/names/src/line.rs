//! Lines that other players read. Bidirectional controls are refused, because they reorder the text around them: a line
//! could seem to come from another player.

/// Whether the text has a character with the Unicode property `Bidi_Control`.
pub fn has_bidi_control(text: &str) -> bool {
    text.contains(|c| {
        matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

/// Whether the text is one line, without control characters and bidirectional controls.
pub fn is_plain_line(text: &str) -> bool {
    !has_bidi_control(text)
        && !text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_with_bidi_control_is_not_plain() {
        for wrong in ["\u{202e}oof", "a\u{2066}b\u{2069}", "\u{200f}", "\u{61c}"] {
            assert!(has_bidi_control(wrong) && !is_plain_line(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn line_break_is_not_plain() {
        assert!(["a\nb", "a\u{2028}b", "a\0b", "a\u{85}b"].iter().all(|line| !is_plain_line(line)));
    }

    #[test]
    fn text_of_right_to_left_scripts_is_plain() {
        assert!(["hello", "שלום", "مرحبا (hi)", "naïve ☺"].iter().all(|line| is_plain_line(line)));
    }
}

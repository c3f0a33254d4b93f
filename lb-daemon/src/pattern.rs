//! Patterns of checks: what `body_regex` compiles to. lb-core reads them as texts, since it has no such crate.

/// The most memory that a compiled pattern may take.
const PATTERN_SIZE_MAX: usize = 1 << 20;

/// Compiles the pattern of a check's `body_regex`. Its matching takes time linear in the body, whatever the pattern.
pub fn compile(pattern: &str) -> Result<regex::bytes::Regex, String> {
    let compiled = regex::bytes::RegexBuilder::new(pattern).size_limit(PATTERN_SIZE_MAX).build();
    compiled.map_err(|error| {
        if matches!(error, regex::Error::CompiledTooBig(_)) {
            return "it would take too much memory".to_owned();
        }
        // The parser draws the pattern over several lines; the last of them says what is wrong.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or("").trim();
        last.strip_prefix("error: ").unwrap_or(last).to_owned()
    })
}

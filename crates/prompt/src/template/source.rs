//! Rewrites template source where minijinja's grammar is narrower than that of Jinja2 as transformers sets it up.

/// Newlines become `\n` and one at the end goes, as Jinja2's lexer has it; `{% generation %}` blocks, which mark an
/// assistant's words for training, become blocks that scope their variables and nothing else.
pub(super) fn prepare(source: &str) -> String {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut out = String::with_capacity(source.len());
    let mut copied = 0;
    for Block { start, text } in blocks(&source) {
        out.push_str(&source[copied..start]);
        copied = start + text.len();
        match word(text) {
            Some("generation") => out.push_str(&text.replacen("generation", "with", 1)),
            Some("endgeneration") => out.push_str(&text.replacen("endgeneration", "endwith", 1)),
            // Jinja2 trims the line end after a block, but not after this one; minijinja does.
            Some("raw") if source[copied..].starts_with('\n') && !text.ends_with("-%}") => {
                out.push_str(text);
                out.push('\n');
            }
            _ => out.push_str(text),
        }
    }
    out.push_str(&source[copied..]);
    out
}

/// A statement or an expression with its delimiters, and the byte it starts at.
struct Block<'a> {
    start: usize,
    text: &'a str,
}

/// All blocks, in order; what stands in comments and raw text is none. The last one may lack its end.
fn blocks(source: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = source[at..].find('{').map(|open| at + open) {
        let rest = &source[start..];
        let length = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map(|end| end + 2),
            Some(b'{') => code_length(rest, "}}"),
            Some(b'%') => code_length(rest, "%}"),
            _ => Some(1),
        };
        at = length.map_or(source.len(), |length| start + length);
        let text = &source[start..at];
        if text.starts_with("{{") || text.starts_with("{%") {
            found.push(Block { start, text });
            if word(text) == Some("raw") {
                at += end_of_raw(&source[at..]);
            }
        }
    }
    found
}

/// Most words and signs between one pair of delimiters, and most `elif`s: each may be a level of the syntax tree.
const MAX_CHAIN: usize = 4_000;

/// Refuses source whose syntax tree could be too deep to walk, with the line it is found on.
pub(super) fn check(source: &str) -> Result<(), (usize, String)> {
    let mut elifs = 0;
    for Block { start, text } in blocks(source) {
        elifs += usize::from(text[2..].trim_start_matches(['-', '+', ' ', '\n', '\t']).starts_with("elif"));
        if elifs > MAX_CHAIN || chain(text) > MAX_CHAIN {
            let line = source[..start].matches('\n').count() + 1;
            return Err((line, format!("more than {MAX_CHAIN} words and signs in one block, or as many elif")));
        }
    }
    Ok(())
}

/// Words and signs outside of strings.
fn chain(block: &str) -> usize {
    let mut count = 0;
    let mut quote = None;
    let mut in_word = false;
    let mut characters = block.chars();
    while let Some(character) = characters.next() {
        if let Some(mark) = quote {
            match character {
                '\\' => drop(characters.next()),
                c if c == mark => quote = None,
                _ => {}
            }
            continue;
        }
        let word = character.is_alphanumeric() || character == '_';
        if matches!(character, '"' | '\'') {
            quote = Some(character);
        }
        let continues = character.is_whitespace() || (word && in_word);
        if !continues {
            count += 1;
        }
        in_word = word;
    }
    count
}

/// Length of a block or expression from its opening to `close`, which does not count inside of quotes and brackets.
fn code_length(code: &str, close: &str) -> Option<usize> {
    let bytes = code.as_bytes();
    let mut at = 2;
    let mut quote = None;
    let mut depth = 0_usize;
    while at < bytes.len() {
        let byte = bytes[at];
        if let Some(mark) = quote {
            at += usize::from(byte == b'\\');
            quote = quote.filter(|_| byte != mark);
        } else if depth == 0 && bytes[at..].starts_with(close.as_bytes()) {
            return Some(at + close.len());
        } else {
            match byte {
                b'"' | b'\'' => quote = Some(byte),
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        at += 1;
    }
    None
}

/// The word of a block that holds one word alone.
fn word(block: &str) -> Option<&str> {
    let inner = block.strip_prefix("{%")?.strip_suffix("%}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner).trim();
    (!inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(inner)
}

/// Where the block that ends raw text begins.
fn end_of_raw(text: &str) -> usize {
    let mut from = 0;
    while let Some(open) = text[from..].find("{%") {
        let start = from + open;
        let block = text[start..].find("%}").map(|end| &text[start..start + end + 2]);
        if block.and_then(word) == Some("endraw") {
            return start;
        }
        from = start + 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::{check, prepare};

    #[test]
    fn generation_blocks_become_scopes_outside_of_text_and_strings() {
        for (source, expect) in [
            ("{%- generation -%}x{% endgeneration %}", "{%- with -%}x{% endwith %}"),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}"),
            ("{# {% generation %} #}{%generation%}", "{# {% generation %} #}{%with%}"),
            ("{% raw %}{% generation %}{% endraw %}", "{% raw %}{% generation %}{% endraw %}"),
            ("{{ \"\\\"}}\" }}{%+ generation +%}", "{{ \"\\\"}}\" }}{%+ with +%}"),
            ("a { b {% set generation = 1 %}", "a { b {% set generation = 1 %}"),
            ("{{ {'a': {}} ~ '{% generation %}' }}", "{{ {'a': {}} ~ '{% generation %}' }}"),
            ("{% raw %}\n{{{% endraw %}{% generation %}", "{% raw %}\n\n{{{% endraw %}{% with %}"),
            ("open {% generation", "open {% generation"),
            ("{", "{"),
        ] {
            assert_eq!(prepare(source), expect);
        }
    }

    #[test]
    fn long_chains_are_found_behind_brackets_and_not_in_raw_text() {
        let chain = " + 1".repeat(5_000);
        assert_eq!(check(&format!("a\n{{{{ {{1: {{}}}} {chain} }}}}")).map_err(|(line, _)| line), Err(2));
        assert_eq!(check(&format!("{{{{ 1{chain}")).map_err(|(line, _)| line), Err(1));
        assert_eq!(check(&format!("{{% raw %}}{{{{ {chain}{{% endraw %}}{{# {chain} #}}{{{{ '{chain}' }}}}")), Ok(()));
    }

    #[test]
    fn newlines_are_those_of_jinja() {
        assert_eq!(prepare("a\r\nb\rc\n\n"), "a\nb\nc\n");
    }
}

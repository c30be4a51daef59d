//! Rewrites template source where minijinja's grammar is narrower than that of Jinja2 as transformers sets it up.

/// Newlines become `\n` and one at the end goes, as Jinja2's lexer has it; `{% generation %}` blocks, which mark an
/// assistant's words for training, become blocks that scope their variables and nothing else.
pub(super) fn prepare(source: &str) -> String {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(open) = rest.find('{') {
        let length = match rest.as_bytes().get(open + 1) {
            Some(b'#') => rest[open..].find("#}").map(|end| end + 2),
            Some(b'{') => code_length(&rest[open..], "}}"),
            Some(b'%') => code_length(&rest[open..], "%}"),
            _ => Some(1),
        };
        let Some(length) = length else { break };
        out.push_str(&rest[..open]);
        let block = &rest[open..open + length];
        rest = &rest[open + length..];
        match word(block) {
            Some("generation") => out.push_str(&block.replacen("generation", "with", 1)),
            Some("endgeneration") => out.push_str(&block.replacen("endgeneration", "endwith", 1)),
            Some("raw") => {
                let end = end_of_raw(rest);
                out.push_str(block);
                // Jinja2 trims the line end after a block, but not after this one; minijinja does.
                if rest.starts_with('\n') && !block.ends_with("-%}") {
                    out.push('\n');
                }
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            _ => out.push_str(block),
        }
    }
    out.push_str(rest);
    out
}

/// Most words and signs between one pair of delimiters, and most `elif`s: each may be a level of the syntax tree.
const MAX_CHAIN: usize = 4_000;

/// Refuses source whose syntax tree could be too deep to walk, with the line it is found on.
pub(super) fn check(source: &str) -> Result<(), (usize, String)> {
    let mut at = 0;
    let mut elifs = 0;
    while let Some(open) = source[at..].find('{').map(|open| at + open) {
        let length = match source.as_bytes().get(open + 1) {
            Some(b'#') => source[open..].find("#}").map(|end| end + 2),
            Some(b'{') => code_length(&source[open..], "}}"),
            Some(b'%') => code_length(&source[open..], "%}"),
            _ => Some(1),
        };
        let end = length.map_or(source.len(), |length| open + length);
        let block = &source[open..end];
        if block.starts_with("{{") || block.starts_with("{%") {
            elifs += usize::from(block[2..].trim_start_matches(['-', '+', ' ', '\n', '\t']).starts_with("elif"));
            if elifs > MAX_CHAIN || chain(block) > MAX_CHAIN {
                let line = source[..open].matches('\n').count() + 1;
                return Err((line, format!("more than {MAX_CHAIN} words and signs in one block, or as many elif")));
            }
        }
        at = end;
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
        if !character.is_whitespace() && !(word && in_word) {
            count += 1;
        }
        in_word = word;
    }
    count
}

/// Length of a block or expression from its opening to `close`, which does not count inside of quotes.
fn code_length(code: &str, close: &str) -> Option<usize> {
    let bytes = code.as_bytes();
    let mut at = 2;
    let mut quote = None;
    while at < bytes.len() {
        match quote {
            Some(_) if bytes[at] == b'\\' => at += 1,
            Some(mark) if bytes[at] == mark => quote = None,
            Some(_) => {}
            None if matches!(bytes[at], b'"' | b'\'') => quote = Some(bytes[at]),
            None if bytes[at..].starts_with(close.as_bytes()) => return Some(at + close.len()),
            None => {}
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
    use super::prepare;

    #[test]
    fn generation_blocks_become_scopes_outside_of_text_and_strings() {
        for (source, expect) in [
            ("{%- generation -%}x{% endgeneration %}", "{%- with -%}x{% endwith %}"),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}"),
            ("{# {% generation %} #}{%generation%}", "{# {% generation %} #}{%with%}"),
            ("{% raw %}{% generation %}{% endraw %}", "{% raw %}{% generation %}{% endraw %}"),
            ("{{ \"\\\"}}\" }}{%+ generation +%}", "{{ \"\\\"}}\" }}{%+ with +%}"),
            ("a { b {% set generation = 1 %}", "a { b {% set generation = 1 %}"),
            ("open {% generation", "open {% generation"),
            ("{", "{"),
        ] {
            assert_eq!(prepare(source), expect);
        }
    }

    #[test]
    fn newlines_are_those_of_jinja() {
        assert_eq!(prepare("a\r\nb\rc\n\n"), "a\nb\nc\n");
    }
}

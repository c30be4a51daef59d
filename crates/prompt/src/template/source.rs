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
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            _ => out.push_str(block),
        }
    }
    out.push_str(rest);
    out
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

//! Patterns of `*`, `**` and `?`, in time linear in pattern times text whatever the pattern. Called by the selections
//! of `recipe` and `quantize`.

/// Whether a pattern for files matches a path. `*` and `?` stop at `/`, `**` does not, and `**/` may stand for no folder
/// at all; a pattern without a `/` matches the last component, so `*.safetensors` finds files in every folder.
pub(crate) fn path_matches(pattern: &str, path: &str) -> bool {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    if pattern.contains('/') || pattern.contains("**") {
        matches(pattern, path, Some('/'))
    } else {
        matches(pattern, path.rsplit('/').next().unwrap_or(path), Some('/'))
    }
}

/// Whether a pattern matches the dotted name of a module as a whole; `*` crosses dots.
pub(crate) fn name_matches(pattern: &str, name: &str) -> bool {
    matches(pattern, name, None)
}

enum Step {
    One(char),
    Any,
    /// Any run; whether it crosses the separator.
    Run(bool),
    /// Any run of whole folders, none included.
    Folders,
}

fn steps(pattern: &str, separator: Option<char>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut at_start_of_component = true;
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if let (true, Some('/'), Some(after)) = (at_start_of_component, separator, rest.strip_prefix("**/")) {
            steps.push(Step::Folders);
            rest = after;
            continue;
        }
        match (c, steps.last_mut()) {
            ('*', Some(Step::Run(crosses))) => *crosses = true,
            ('*', _) => steps.push(Step::Run(separator.is_none())),
            ('?', _) => steps.push(Step::Any),
            (c, _) => steps.push(Step::One(c)),
        }
        at_start_of_component = Some(c) == separator;
        rest = &rest[c.len_utf8()..];
    }
    steps
}

fn matches(pattern: &str, text: &str, separator: Option<char>) -> bool {
    let steps = steps(pattern, separator);
    // `reached[i]`: the first i steps match the text read so far.
    let mut reached = vec![false; steps.len() + 1];
    reach(&steps, &mut reached, 0);
    for c in text.chars() {
        let mut next = vec![false; steps.len() + 1];
        for (index, step) in steps.iter().enumerate().filter(|(index, _)| reached[*index]) {
            match step {
                Step::One(wanted) if *wanted == c => reach(&steps, &mut next, index + 1),
                Step::Any if Some(c) != separator => reach(&steps, &mut next, index + 1),
                Step::Run(crosses) if *crosses || Some(c) != separator => reach(&steps, &mut next, index),
                // Inside a folder's name the run goes on; behind its `/` it may end.
                Step::Folders if Some(c) == separator => reach(&steps, &mut next, index),
                Step::Folders => next[index] = true,
                _ => {}
            }
        }
        reached = next;
    }
    reached[steps.len()]
}

/// Marks a step as reached, and those behind it where a run is empty.
fn reach(steps: &[Step], reached: &mut [bool], index: usize) {
    for (at, step) in steps.iter().enumerate().skip(index) {
        reached[at] = true;
        if !matches!(step, Step::Run(_) | Step::Folders) {
            return;
        }
    }
    reached[steps.len()] = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_files() {
        let check = |pattern: &str, path: &str, expected: bool| {
            assert_eq!(path_matches(pattern, path), expected, "{pattern} {path}");
        };
        check("*.safetensors", "model.safetensors", true);
        check("*.safetensors", "deep/model.safetensors", true);
        check("*.safetensors", "model.safetensors.bak", false);
        check("deep/*", "deep/a", true);
        check("deep/*", "deep/er/a", false);
        check("deep/**", "deep/er/a", true);
        check("**/a", "a", true);
        check("**/a", "x/y/a", true);
        check("**/a", "x/ya", false);
        check("x/**/a", "x/y/z/a", true);
        check("x/**/a", "x/a", true);
        check("x/**/a", "x/ya", false);
        check("**.json", "x/y.json", true);
        check("./README.md", "README.md", true);
        check("**", "a/b", true);
        check("?.json", "a.json", true);
        check("a?b/c", "a/b/c", false);
        check("", "a", false);
    }

    #[test]
    fn patterns_of_modules() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(name_matches(pattern, name), expected, "{pattern} {name}");
        };
        check("lm_head", "lm_head", true);
        check("lm_head", "model.lm_head", false);
        check("*.gate", "model.layers.0.mlp.gate", true);
        check("*.gate", "model.layers.0.mlp.gate_proj", false);
        check("model.layers.?.mlp.*", "model.layers.1.mlp.up_proj", true);
        check("model.layers.?.mlp.*", "model.layers.11.mlp.up_proj", false);
        check("*", "", true);
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer() {
        let pattern = "*a".repeat(500);
        assert!(!name_matches(&pattern, &"a".repeat(400)));
    }
}

//! What names, versions, paths and references look like. The tables of `language` and `draft` call these; each says
//! what is wrong in the middle of a sentence that starts with the key.

use mlxctl_artifact::{Error, LayerPath, Reference};

use crate::problem::{Objection, shown};

/// The same as the distribution specification's repository name.
pub(crate) const NAME_PATTERN: &str = "^[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*$";
/// The same as the distribution specification's tag.
pub(crate) const TAG_PATTERN: &str = "^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$";
/// `[owner/]name[@revision]`.
pub(crate) const HUB_PATTERN: &str =
    "^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?(@[A-Za-z0-9_][A-Za-z0-9._/-]*)?$";
/// Anything but an absolute path; what leads out of a folder is told by the parser.
pub(crate) const INSIDE_PATTERN: &str = "^[^/\\\\:]";
pub(crate) const URL_PATTERN: &str = "^https?://[^\\s/]+";

/// A number and a unit; its bounds are told by the parser.
pub(crate) const BYTE_SIZE_PATTERN: &str = "^[0-9]+(\\.[0-9]+)? ?([KMGT]i?B|B)$";

/// Bytes of a size such as `500MB`, `2GiB` or `1.5 GB`: from 1 MB to 1 PB.
pub(crate) fn byte_size(text: &str) -> Result<u64, Objection> {
    const UNITS: [(&str, f64); 9] = [
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("B", 1.0),
    ];
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
    let is_number = |number: &str| {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        [whole, fraction].iter().all(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let bytes = unit.and_then(|(number, bytes)| {
        let number = number.strip_suffix(' ').unwrap_or(number);
        is_number(number).then(|| number.parse::<f64>().ok())?.map(|number| number * bytes)
    });
    match bytes {
        None => Err(Objection::new(format!("is {}, which is no size", shown(text)))
            .hint("write a number and a unit, such as `500MB` or `2GiB`")),
        Some(bytes) if (1e6..=1e15).contains(&bytes) => Ok(bytes as u64),
        Some(_) => Err(Objection::new(format!("is {}, and a size is from 1MB to 1000TB", shown(text)))),
    }
}

/// The name of a model: a repository name, without registry, tag or digest.
pub(crate) fn name(text: &str) -> Result<(), Objection> {
    let wrong = || Objection::new(format!("is {}, which is no name for a model", shown(text)));
    if text.contains('@') || text.contains(':') {
        return Err(wrong().hint("the name stands without registry, tag and digest; the tag comes from `version`"));
    }
    match text.parse::<Reference>() {
        Ok(reference) if reference.registry().is_none() => Ok(()),
        Ok(_) => Err(wrong().hint("its first part reads as the host of a registry; a name stands without one")),
        Err(_) => {
            let lower: String = text.trim().to_lowercase().replace([' ', '\t'], "-");
            let rule = "lower-case letters and digits, separated by `.`, `_`, `-` or `/`, at most 255 of them";
            Err(wrong().hint(match lower.parse::<Reference>() {
                Ok(reference) if reference.registry().is_none() && lower.len() <= 60 => {
                    format!("a name has {rule}, such as `{lower}`")
                }
                _ => format!("a name has {rule}"),
            }))
        }
    }
}

/// The version of a model, which becomes a tag.
pub(crate) fn version(text: &str) -> Result<(), Objection> {
    let tagged = Reference::local("model", Some(text));
    if tagged.is_ok_and(|reference| reference.tag() == Some(text) && reference.digest().is_none()) {
        return Ok(());
    }
    let objection = Objection::new(format!("is {}, which cannot be a tag", shown(text)));
    Err(objection.hint("a tag has at most 128 letters, digits, `.`, `_` and `-`, and starts with none of `.-`"))
}

/// Another artifact.
pub(crate) fn oci_reference(text: &str) -> Result<(), Objection> {
    if text.contains("://") {
        let bare = text.split_once("://").map_or(text, |(_, bare)| bare);
        return Err(Objection::new(format!("is {}, an address rather than a reference", shown(text)))
            .hint(format!("leave the scheme away: {}", shown(bare))));
    }
    match text.parse::<Reference>() {
        Ok(_) => Ok(()),
        Err(error) => Err(Objection::new(format!("is {}, no reference: {}", shown(text), reason(&error)))
            .hint("a reference is [registry/]repository[:tag][@sha256:…]")),
    }
}

/// Why a name was refused, without the name.
fn reason(error: &Error) -> String {
    match error {
        Error::Digest { reason, .. } | Error::Reference { reason, .. } | Error::LayerPath { reason, .. } => {
            (*reason).to_owned()
        }
        Error::Document { reason, .. } => reason.clone(),
    }
}

/// A repository of the hub.
pub(crate) fn hub_reference(text: &str) -> Result<(), Objection> {
    const FORM: &str = "a hub repository is written owner/name, or owner/name@revision";
    let wrong = |reason: &str| Err(Objection::new(format!("is {}: {reason}", shown(text))).hint(FORM));
    if text.contains("://") {
        return wrong("an address, not the name of a hub repository");
    }
    let (repository, revision) = match text.split_once('@') {
        Some((repository, revision)) => (repository, Some(revision)),
        None => (text, None),
    };
    let part = |part: &str| {
        (1..=96).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
    };
    if repository.matches('/').count() > 1 || !repository.split('/').all(part) {
        return wrong("the repository is not owner/name in letters, digits, `.`, `_` and `-`");
    }
    match revision {
        None => Ok(()),
        Some(revision) => {
            self::revision(revision).or_else(|_| wrong("the revision after `@` is no commit, branch or tag"))
        }
    }
}

/// A commit, branch or tag of a hub repository.
pub(crate) fn revision(text: &str) -> Result<(), Objection> {
    let sound = (1..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
        && !text.starts_with(['.', '-', '/'])
        && !text.contains("..");
    if sound { Ok(()) } else { Err(Objection::new(format!("is {}, no commit, branch or tag", shown(text)))) }
}

/// An address of the web.
pub(crate) fn url(text: &str) -> Result<(), Objection> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let sound = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if sound && !text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    Err(Objection::new(format!("is {}, no address", shown(text))).hint("an address starts with https:// or http://"))
}

/// One line: what stands in a label or an annotation.
pub(crate) fn one_line(text: &str) -> Result<(), Objection> {
    if text.contains(char::is_control) {
        return Err(Objection::new(format!("is {}, and takes a single line", shown(text))));
    }
    Ok(())
}

/// A file beside the recipe, or in the source: relative, and never out of its folder.
pub(crate) fn inside(text: &str) -> Result<(), Objection> {
    match text.strip_prefix("./").unwrap_or(text).parse::<LayerPath>() {
        Ok(_) => Ok(()),
        Err(error) => Err(Objection::new(format!("is {}: {}", shown(text), reason(&error)))
            .hint("write a path that stays in its folder, such as README.md or docs/card.md")),
    }
}

/// A pattern for files: relative, inside, and of `*`, `**` and `?` alone.
pub(crate) fn file_pattern(text: &str) -> Result<(), Objection> {
    pattern(text)?;
    inside(text)
}

/// A pattern for the names of a model's modules.
pub(crate) fn module_pattern(text: &str) -> Result<(), Objection> {
    pattern(text)?;
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Objection::new(format!("is {}, and the names of modules hold no spaces", shown(text))));
    }
    if text.ends_with(".weight") {
        let module = text.strip_suffix(".weight").unwrap_or(text);
        return Err(Objection::new(format!("is {}: it matches modules, not their tensors", shown(text)))
            .hint(format!("leave `.weight` away: {}", shown(module))));
    }
    Ok(())
}

fn pattern(text: &str) -> Result<(), Objection> {
    if text.contains(['[', ']', '{', '}', '!']) {
        return Err(Objection::new(format!("is {}, and patterns know `*`, `**` and `?` alone", shown(text)))
            .hint("write one pattern for each case"));
    }
    Ok(())
}

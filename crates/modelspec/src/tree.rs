//! YAML text to a tree of nodes that know where they stand. Called by `parse`.
//!
//! Scalars stay as written, so that `version: 1.10` is not a number that lost its zero. Aliases share the node they
//! name; what they stand for is counted as if it were written out, which is what bounds a recipe that doubles itself.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::problem::{Objection, Place, Report, shown};

/// Lists and mappings within each other.
const MAX_DEPTH: usize = 32;
/// Nodes, with aliases written out.
const MAX_NODES: usize = 200_000;
/// Bytes of text, with aliases written out.
const MAX_EXPANDED_BYTES: usize = 4 << 20;

/// A value and the place where it is used.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Place,
    pub(crate) kind: Rc<Kind>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A scalar as written, after escapes.
#[derive(Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Neither quoted nor a block: a plain scalar may stand for a number, a truth value or nothing.
    pub(crate) plain: bool,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Place,
    pub(crate) value: Node,
}

/// What a plain scalar stands for in YAML 1.2's core schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Meaning {
    Nothing,
    Truth(bool),
    Integer(i128),
    Float(f64),
    Text,
}

impl Scalar {
    pub(crate) fn meaning(&self) -> Meaning {
        if !self.plain {
            return Meaning::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => return Meaning::Nothing,
            "true" | "True" | "TRUE" => return Meaning::Truth(true),
            "false" | "False" | "FALSE" => return Meaning::Truth(false),
            _ => {}
        }
        number(&self.text).unwrap_or(Meaning::Text)
    }
}

fn number(text: &str) -> Option<Meaning> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    match digits {
        ".inf" | ".Inf" | ".INF" => {
            return Some(Meaning::Float(if negative { f64::NEG_INFINITY } else { f64::INFINITY }));
        }
        ".nan" | ".NaN" | ".NAN" if digits.len() == text.len() => return Some(Meaning::Float(f64::NAN)),
        _ => {}
    }
    let based = |prefix, radix| {
        let digits = text.strip_prefix(prefix)?;
        let sound = !digits.is_empty() && digits.bytes().all(|digit| char::from(digit).is_digit(radix));
        // More digits than an i128 holds: a number all the same, out of every range.
        sound.then(|| i128::from_str_radix(digits, radix).map_or(Meaning::Float(f64::INFINITY), Meaning::Integer))
    };
    if let Some(meaning) = based("0o", 8).or_else(|| based("0x", 16)) {
        return Some(meaning);
    }
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        || !digits.bytes().any(|byte| byte.is_ascii_digit())
        || !digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'))
    {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(integer) = text.parse()
    {
        return Some(Meaning::Integer(integer));
    }
    text.parse().ok().map(Meaning::Float)
}

impl Node {
    /// What it is, for a message.
    pub(crate) fn description(&self) -> String {
        match &*self.kind {
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a mapping".to_owned(),
            Kind::Scalar(scalar) => match scalar.meaning() {
                Meaning::Nothing => "nothing".to_owned(),
                Meaning::Truth(truth) => format!("the truth value {truth}"),
                Meaning::Integer(_) | Meaning::Float(_) => format!("the number {}", shown(&scalar.text)),
                Meaning::Text => format!("the text {}", shown(&scalar.text)),
            },
        }
    }

    /// The entries of a mapping, none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &*self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }
}

/// The one document in `text`; `None` where it cannot be read, with the reason in `report`.
pub(crate) fn read(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let mut builder = Builder { open: Vec::new(), anchors: HashMap::new(), root: None };
    let mut documents = 0;
    for next in Parser::new_from_str_with_options(text.strip_prefix('\u{feff}').unwrap_or(text), options()) {
        let (event, span) = match next {
            Ok(next) => next,
            Err(error) => {
                let message = format!("the YAML cannot be read: {}", error.info());
                report.add(place(error.marker()), "", Objection::new(message));
                return None;
            }
        };
        let at = place(&span.start);
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
            if documents > 1 {
                report.add(at, "", Objection::new("a recipe file holds one document, and here a second one starts"));
                return None;
            }
        }
        if let Err(objection) = builder.take(event, at, report) {
            report.add(at, "", objection);
            return None;
        }
    }
    let empty = |node: &Node| matches!(&*node.kind, Kind::Scalar(scalar) if scalar.meaning() == Meaning::Nothing);
    match builder.root {
        Some(root) if !empty(&root) => Some(root),
        _ => {
            report.add(Place::START, "", Objection::new("the recipe is empty"));
            None
        }
    }
}

fn options() -> granit_parser::Options {
    let mut options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    options
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

/// How much a node stands for, aliases written out.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    nodes: usize,
    bytes: usize,
    height: usize,
}

impl Extent {
    fn hold(&mut self, child: Self) {
        self.nodes = self.nodes.saturating_add(child.nodes);
        self.bytes = self.bytes.saturating_add(child.bytes);
        self.height = self.height.max(child.height + 1);
    }
}

struct Open {
    at: Place,
    anchor: usize,
    extent: Extent,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashMap<String, Place>, key: Option<Key> },
}

/// A key that waits for its value.
struct Key {
    text: String,
    at: Place,
    /// It is not kept: a key that came before, or one that is no text.
    refused: bool,
}

struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Extent)>,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Place, report: &mut Report<'_>) -> Result<(), Objection> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let forced = tag.as_deref().map(understood).transpose()?.unwrap_or(false);
                let extent = Extent { nodes: 1, bytes: text.len(), height: 0 };
                let scalar = Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain && !forced };
                self.place(Node { at, kind: Rc::new(Kind::Scalar(scalar)) }, extent, anchor, report)
            }
            Event::SequenceStart(_, anchor, tag) => self.start(at, anchor, tag.as_deref(), Content::List(Vec::new())),
            Event::MappingStart(_, anchor, tag) => {
                let content = Content::Map { entries: Vec::new(), seen: HashMap::new(), key: None };
                self.start(at, anchor, tag.as_deref(), content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(report),
            Event::Alias(anchor) => {
                let Some((node, extent)) = self.anchors.get(&anchor) else {
                    return Err(Objection::new("an alias stands within the value it names"));
                };
                let (node, extent) = (Node { at, kind: Rc::clone(&node.kind) }, *extent);
                self.place(node, extent, 0, report)
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, at: Place, anchor: usize, tag: Option<&Tag>, content: Content) -> Result<(), Objection> {
        tag.map(understood).transpose()?;
        self.open.push(Open { at, anchor, extent: Extent { nodes: 1, bytes: 0, height: 0 }, content });
        if self.open.len() > MAX_DEPTH { Err(too_deep()) } else { Ok(()) }
    }

    fn end(&mut self, report: &mut Report<'_>) -> Result<(), Objection> {
        let Some(Open { at, anchor, extent, content }) = self.open.pop() else { return Ok(()) };
        let kind = match content {
            Content::List(items) => Kind::List(items),
            Content::Map { entries, .. } => Kind::Map(entries),
        };
        self.place(Node { at, kind: Rc::new(kind) }, extent, anchor, report)
    }

    /// Puts a finished node into what is open around it.
    fn place(&mut self, node: Node, extent: Extent, anchor: usize, report: &mut Report<'_>) -> Result<(), Objection> {
        if self.open.len().saturating_add(extent.height) > MAX_DEPTH {
            return Err(too_deep());
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), extent));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.extent.hold(extent);
        if parent.extent.nodes > MAX_NODES {
            return Err(Objection::new(format!("the recipe holds more than {MAX_NODES} values, aliases written out")));
        }
        if parent.extent.bytes > MAX_EXPANDED_BYTES {
            return Err(Objection::new(format!("the recipe's aliases stand for more than {MAX_EXPANDED_BYTES} bytes")));
        }
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, seen, key } => match key.take() {
                None => *key = Some(take_key(&node, seen, report)),
                Some(key) if key.refused => {}
                Some(Key { text, at, .. }) => entries.push(Entry { key: text, key_at: at, value: node }),
            },
        }
        Ok(())
    }
}

fn take_key(node: &Node, seen: &mut HashMap<String, Place>, report: &mut Report<'_>) -> Key {
    let at = node.at;
    let Kind::Scalar(scalar) = &*node.kind else {
        report.add(at, "", Objection::new(format!("a key must be text, found {}", node.description())));
        return Key { text: String::new(), at, refused: true };
    };
    let text = scalar.text.clone();
    let refused = if let Some(first) = seen.get(&text) {
        let message = format!("the key {} is given twice, first in line {}", shown(&text), first.line);
        report.add(at, "", Objection::new(message).hint("keep one of them"));
        true
    } else {
        seen.insert(text.clone(), at);
        false
    };
    Key { text, at, refused }
}

fn too_deep() -> Objection {
    Objection::new(format!("lists and mappings stand more than {MAX_DEPTH} deep within each other"))
}

/// Whether a tag makes a scalar text. Tags outside YAML's core schema mean nothing here.
fn understood(tag: &Tag) -> Result<bool, Objection> {
    match tag.core_suffix() {
        Some("str") => Ok(true),
        Some("int" | "float" | "bool" | "null" | "seq" | "map") => Ok(false),
        _ if tag.original() == "!" => Ok(true),
        _ => Err(Objection::new(format!("the tag {} has no meaning in a recipe", shown(&tag.original())))
            .hint("remove the tag")),
    }
}

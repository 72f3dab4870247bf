//! A settings file as a tree whose keys and values know where they stand.
//!
//! The events of the parser are made into [`Node`]s: duplicate keys are found here, since a mapping of values could not hold
//! them; `${NAME}` is put in here, after parsing, so that no variable can change the file's structure; and plain scalars get
//! the type that `serde_yaml` gives them. Depth and number of nodes are bounded, aliases counted as what they stand for.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_yaml::Value;

use super::environment::Environment;
use super::mistake::{LocatedMistake, Mistake, Position};

/// A file's tree and what was found wrong in it so far.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Node,
    mistakes: Vec<LocatedMistake>,
    /// Paths at which the tree no longer says what the file said.
    changed: Vec<String>,
    /// What must not be repeated, and what to write instead.
    hidden: Vec<(String, String)>,
}

/// One value of the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where it stands among the keys, as the file has it.
    pub(super) path: String,
    /// Where the value begins.
    pub(super) position: Position,
    /// Where its key begins; the value's own position when it has none.
    pub(super) key_position: Position,
    /// Set when it only stands in for a value that is missing: how many stand-ins were tried.
    pub(super) placeholder: Option<usize>,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Scalar(Value),
    Sequence(Vec<Node>),
    Mapping(Vec<(String, Node)>),
}

/// More mistakes than a person reads at once; the report says that there are more.
pub(super) const MISTAKES_MAX: usize = 100;
const DEPTH_MAX: usize = 32;
/// Room for five thousand services with a check, a tag and meta data each. The whole is read anew after each mistake.
const NODES_MAX: usize = 100_000;
/// Shorter values are hidden only where they are the value at fault: they would blot out innocent words.
const HIDDEN_EVERYWHERE_CHARS_MIN: usize = 4;

impl Document {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// The one error of syntax, or the bound that the text breaks.
    pub(super) fn parse(text: &str, environment: &Environment) -> Result<Self, LocatedMistake> {
        let start = Position { line: 1, column: 1 };
        let mut builder = Builder {
            environment,
            open: Vec::new(),
            anchors: BTreeMap::new(),
            nodes: 0,
            document: Self {
                root: Node::new(start, Content::Mapping(Vec::new())),
                mistakes: Vec::new(),
                changed: Vec::new(),
                hidden: Vec::new(),
            },
            has_root: false,
        };
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| syntax_mistake(&error))?;
            builder.on_event(event, span)?;
        }
        let mut document = builder.document;
        if matches!(document.root.content, Content::Scalar(Value::Null)) {
            document.root.content = Content::Mapping(Vec::new());
        }
        Ok(document)
    }

    /// Adds a mistake at a node that is in the tree.
    pub(super) fn add(&mut self, position: Position, path: &str, message: String, remedy: String) {
        let mistake = Mistake { path: path.to_owned(), message: self.without_secrets(path, message), remedy };
        self.mistakes.push(LocatedMistake { position, mistake });
    }

    /// Notes that the tree at `path` was changed, so that what others find there may be the change's doing.
    pub(super) fn note_change(&mut self, path: &str) {
        self.changed.push(path.to_owned());
    }

    /// Whether the value at `path` was taken out.
    pub(super) fn is_changed(&self, path: &str) -> bool {
        self.changed.iter().any(|changed| changed == path)
    }

    /// Whether no more mistakes are wanted.
    pub(super) fn is_full(&self) -> bool {
        self.mistakes.len() >= MISTAKES_MAX
    }

    /// Adds what a role's own checks found in the values that were read from this tree.
    pub(super) fn add_found(&mut self, found: &[Mistake]) {
        for mistake in found {
            let (node, rest) = self.root.nearest(&mistake.path);
            let path = format!("{}{rest}", node.path);
            let path = path.trim_start_matches('.');
            let follows = |changed: &String| is_below(changed, path) || is_below(path, changed);
            if !self.changed.iter().any(follows) {
                let position = node.position;
                self.add(position, path, mistake.message.clone(), mistake.remedy.clone());
            }
        }
    }

    /// All mistakes by position.
    pub(super) fn into_mistakes(self) -> Vec<LocatedMistake> {
        let mut mistakes = self.mistakes;
        mistakes.sort();
        mistakes.dedup();
        if mistakes.len() >= MISTAKES_MAX {
            mistakes.truncate(MISTAKES_MAX);
            let position = mistakes[MISTAKES_MAX - 1].position;
            let mistake = Mistake::new("", "there may be more mistakes", "mend these first");
            mistakes.push(LocatedMistake { position, mistake });
        }
        mistakes
    }

    fn without_secrets(&self, path: &str, message: String) -> String {
        let node = self.root.find(path);
        self.hidden.iter().fold(message, |message, (secret, instead)| {
            let is_here = node.is_some_and(|node| node.holds(secret));
            if secret.is_empty() || (!is_here && secret.chars().count() < HIDDEN_EVERYWHERE_CHARS_MIN) {
                return message;
            }
            hide(&message, secret, instead)
        })
    }
}

/// The message with `instead` in place of the value. A short one is often part of other words, or one of them: it is looked for
/// in quotes first, then as a word.
fn hide(message: &str, value: &str, instead: &str) -> String {
    let escaped = format!("{value:?}");
    if value.chars().count() >= HIDDEN_EVERYWHERE_CHARS_MIN {
        return message.replace(escaped.trim_matches('"'), instead).replace(value, instead);
    }
    if message.contains(&escaped) {
        return message.replace(&escaped, &format!("\"{instead}\""));
    }
    let is_inside = |neighbour: Option<char>| neighbour.is_some_and(char::is_alphanumeric);
    let mut hidden = String::with_capacity(message.len());
    let mut rest = 0;
    for (start, found) in message.match_indices(value) {
        let end = start + found.len();
        if !is_inside(message[..start].chars().next_back()) && !is_inside(message[end..].chars().next()) {
            hidden.push_str(&message[rest..start]);
            hidden.push_str(instead);
            rest = end;
        }
    }
    hidden.push_str(&message[rest..]);
    hidden
}

impl Node {
    fn new(position: Position, content: Content) -> Self {
        Self { path: String::new(), position, key_position: position, placeholder: None, content }
    }

    /// Stands in for the value that is missing at `path`.
    pub(super) fn placeholder(position: Position, path: String) -> Self {
        Self { path, placeholder: Some(0), ..Self::new(position, Content::Scalar(Value::Null)) }
    }

    /// The place of `key` among the children.
    pub(super) fn child_index(&self, key: &str) -> Option<usize> {
        match &self.content {
            Content::Mapping(entries) => entries.iter().position(|(name, _)| name == key),
            Content::Scalar(_) | Content::Sequence(_) => None,
        }
    }

    /// The child at this place.
    pub(super) fn child(&self, index: usize) -> Option<&Self> {
        match &self.content {
            Content::Scalar(_) => None,
            Content::Sequence(items) => items.get(index),
            Content::Mapping(entries) => entries.get(index).map(|(_, node)| node),
        }
    }

    /// The node that these steps lead to, as far as they go.
    pub(super) fn at(&self, steps: &[usize]) -> &Self {
        let child = steps.split_first().and_then(|(first, rest)| Some((self.child(*first)?, rest)));
        child.map_or(self, |(child, rest)| child.at(rest))
    }

    /// As [`Self::at`].
    pub(super) fn at_mut(&mut self, steps: &[usize]) -> &mut Self {
        let Some((first, rest)) = steps.split_first().filter(|(first, _)| self.child(**first).is_some())
        else {
            return self;
        };
        match &mut self.content {
            Content::Scalar(_) => unreachable!("a scalar has no child"),
            Content::Sequence(items) => items[*first].at_mut(rest),
            Content::Mapping(entries) => entries[*first].1.at_mut(rest),
        }
    }

    /// The value as serde reads it.
    pub(super) fn value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::Sequence(items) => Value::Sequence(items.iter().map(Self::value).collect()),
            Content::Mapping(entries) => Value::Mapping(
                entries.iter().map(|(key, node)| (Value::String(key.clone()), node.value())).collect(),
            ),
        }
    }

    fn holds(&self, text: &str) -> bool {
        match &self.content {
            Content::Scalar(Value::String(string)) => string == text,
            Content::Scalar(value) => serde_yaml::to_string(value).is_ok_and(|value| value.trim() == text),
            Content::Sequence(items) => items.iter().any(|node| node.holds(text)),
            Content::Mapping(entries) => entries.iter().any(|(_, node)| node.holds(text)),
        }
    }

    fn set_paths(&mut self, path: String) {
        match &mut self.content {
            Content::Scalar(_) => {}
            Content::Sequence(items) => {
                for (index, node) in items.iter_mut().enumerate() {
                    node.set_paths(format!("{path}[{index}]"));
                }
            }
            Content::Mapping(entries) => {
                for (key, node) in entries {
                    node.set_paths(child_path(&path, key));
                }
            }
        }
        self.path = path;
    }

    /// The node whose path in the file is `path`.
    fn find(&self, path: &str) -> Option<&Self> {
        if self.path == path {
            return Some(self);
        }
        match &self.content {
            Content::Scalar(_) => None,
            Content::Sequence(items) => items.iter().find_map(|node| node.find(path)),
            Content::Mapping(entries) => entries.iter().find_map(|(_, node)| node.find(path)),
        }
    }

    /// Follows a path that counts items as they are in the tree now, as far as there are nodes; what is left is returned.
    fn nearest<'a>(&self, path: &'a str) -> (&Self, &'a str) {
        match &self.content {
            Content::Scalar(_) => (self, path),
            Content::Sequence(items) => {
                let item = path.strip_prefix('[').and_then(|path| path.split_once(']'));
                let node =
                    item.and_then(|(index, rest)| Some((items.get(index.parse::<usize>().ok()?)?, rest)));
                node.map_or((self, path), |(node, rest)| node.nearest(rest))
            }
            Content::Mapping(entries) => {
                let key = path.strip_prefix('.').unwrap_or(path);
                let end = key.find(['.', '[']).unwrap_or(key.len());
                let (key, rest) = key.split_at(end);
                let node = entries.iter().find(|(name, _)| !key.is_empty() && name == key);
                node.map_or((self, path), |(_, node)| node.nearest(rest))
            }
        }
    }
}

/// Makes nodes of events.
struct Builder<'a> {
    environment: &'a Environment,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    document: Document,
    has_root: bool,
}

/// A sequence or mapping whose end has not come.
struct Open {
    node: Node,
    anchor: usize,
    path: String,
    key: Option<(String, Position)>,
    /// The keys that it has already, each with its line.
    key_lines: BTreeMap<String, usize>,
}

impl Builder<'_> {
    fn on_event(&mut self, event: Event<'_>, span: Span) -> Result<(), LocatedMistake> {
        let position = position(span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.has_root => {
                Err(alone(position, "a second document begins", "keep one document in a settings file"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Scalar(text, style, anchor, tag) => {
                self.on_scalar(&text, style, anchor, tag.as_deref(), position)
            }
            Event::SequenceStart(anchor, tag) => {
                self.on_start(Content::Sequence(Vec::new()), anchor, tag.as_deref(), position)
            }
            Event::MappingStart(anchor, tag) => {
                self.on_start(Content::Mapping(Vec::new()), anchor, tag.as_deref(), position)
            }
            Event::SequenceEnd | Event::MappingEnd => self.on_end(),
            Event::Alias(anchor) => {
                let Some(mut node) = self.anchors.get(&anchor).cloned() else {
                    let remedy = "name an anchor that is complete before it is used";
                    return Err(alone(position, "the alias has no anchor", remedy));
                };
                node.key_position = position;
                let nodes = count(&node);
                self.place(node, nodes)
            }
        }
    }

    fn on_start(
        &mut self,
        content: Content,
        anchor: usize,
        tag: Option<&Tag>,
        position: Position,
    ) -> Result<(), LocatedMistake> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("nested more than {DEPTH_MAX} deep");
            return Err(alone(
                position,
                &message,
                "no setting is nested that deep; look for a bracket too many",
            ));
        }
        let path = self.path_here();
        if self.open.last().is_some_and(Open::wants_key) {
            return Err(alone(position, "a key is not a text", "write keys as plain words"));
        }
        self.refuse_tag(tag, &path, position);
        let node = Node::new(position, content);
        self.open.push(Open { node, anchor, path, key: None, key_lines: BTreeMap::new() });
        Ok(())
    }

    fn on_end(&mut self) -> Result<(), LocatedMistake> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        if open.anchor != 0 {
            self.anchors.insert(open.anchor, open.node.clone());
        }
        // What is in it was counted when it was placed.
        self.place(open.node, 1)
    }

    fn on_scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        position: Position,
    ) -> Result<(), LocatedMistake> {
        if let Some(open) = self.open.last_mut().filter(|open| open.wants_key()) {
            open.key = Some((text.to_owned(), position));
            return Ok(());
        }
        let path = self.path_here();
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        if !is_text {
            self.refuse_tag(tag, &path, position);
        }
        let expanded = self.environment.expand(text);
        let names_secret = ["password", "secret", "token", "credential"]
            .iter()
            .any(|word| path.to_ascii_lowercase().rsplit('.').next().is_some_and(|key| key.contains(word)));
        match &expanded {
            Ok(Some(value)) => self.document.hidden.push((value.clone(), text.to_owned())),
            Ok(None) if names_secret => self.document.hidden.push((text.to_owned(), "***".to_owned())),
            Ok(None) => {}
            Err((message, remedy)) => {
                self.document.add(position, &path, message.clone(), remedy.clone());
                self.document.note_change(&path);
                return self.place(Node::placeholder(position, path), 1);
            }
        }
        let value = expanded.ok().flatten().unwrap_or_else(|| text.to_owned());
        let value =
            if style == ScalarStyle::Plain && !is_text { plain_value(value) } else { Value::String(value) };
        let node = Node::new(position, Content::Scalar(value));
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node, 1)
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, mut node: Node, nodes: usize) -> Result<(), LocatedMistake> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values, an alias counted as all that it stands for");
            let remedy = "use fewer aliases, or divide what the file lists among several";
            return Err(alone(node.position, &message, remedy));
        }
        let Some(open) = self.open.last_mut() else {
            node.set_paths(String::new());
            self.document.root = node;
            self.has_root = true;
            return Ok(());
        };
        match &mut open.node.content {
            Content::Scalar(_) => {}
            Content::Sequence(items) => items.push(node),
            Content::Mapping(entries) => {
                let Some((key, key_position)) = open.key.take() else {
                    return Err(alone(node.position, "a key is not a text", "write keys as plain words"));
                };
                node.key_position = key_position;
                if let Some(line) = open.key_lines.get(&key) {
                    let message = format!("the key stands twice, first in line {line}");
                    let path = child_path(&open.path, &key);
                    self.document.add(key_position, &path, message, "keep one of them".to_owned());
                } else {
                    open.key_lines.insert(key.clone(), key_position.line);
                    entries.push((key, node));
                }
            }
        }
        Ok(())
    }

    fn path_here(&self) -> String {
        let Some(open) = self.open.last() else { return String::new() };
        match (&open.node.content, &open.key) {
            (Content::Sequence(items), _) => format!("{}[{}]", open.path, items.len()),
            (Content::Mapping(_), Some((key, _))) => child_path(&open.path, key),
            (Content::Mapping(_) | Content::Scalar(_), _) => open.path.clone(),
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, path: &str, position: Position) {
        let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) else { return };
        let message = format!("the tag {}{} means nothing here", tag.handle, tag.suffix);
        self.document.add(position, path, message, "remove it".to_owned());
    }
}

impl Open {
    fn wants_key(&self) -> bool {
        matches!(self.node.content, Content::Mapping(_)) && self.key.is_none()
    }
}

fn count(node: &Node) -> usize {
    match &node.content {
        Content::Scalar(_) => 1,
        Content::Sequence(items) => items.iter().map(count).sum::<usize>() + 1,
        Content::Mapping(entries) => entries.iter().map(|(_, node)| count(node)).sum::<usize>() + 1,
    }
}

/// The value of a plain scalar: null, a boolean, a number, or else a text.
fn plain_value(text: String) -> Value {
    match serde_yaml::from_str(&text) {
        Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => value,
        Ok(Value::String(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_)) | Err(_) => {
            Value::String(text)
        }
    }
}

/// The path of `key` in the mapping at `path`.
pub(super) fn child_path(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Whether `path` is `above` or lies below it.
fn is_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    above.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn position(span: Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

fn syntax_mistake(error: &ScanError) -> LocatedMistake {
    let position = Position { line: error.marker().line(), column: error.marker().col() + 1 };
    let message = format!("not YAML: {}", error.info());
    alone(
        position,
        &message,
        "mend this first; look at indentation, quotes and brackets in and above this line",
    )
}

fn alone(position: Position, message: &str, remedy: &str) -> LocatedMistake {
    LocatedMistake { position, mistake: Mistake::new("", message, remedy) }
}

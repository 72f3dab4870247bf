//! Reads a tree into a type, going on after each mistake.
//!
//! serde stops at the first mistake. So the tree is read again and again: each mistake is noted and then mended in the tree
//! (a value that is wrong is taken out, a key that is missing gets a placeholder) until the rest reads. What the mending
//! itself brings about is not told.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use serde_yaml::{Mapping, Value};

use super::document::{Content, Document, MISTAKES_MAX, Node, child_path};
use super::message::Finding;
use super::mistake::Mistake;

/// Rounds after which the reading is given up: each mistake takes one, and a placeholder a few more.
const ROUNDS_MAX: usize = MISTAKES_MAX * 8;

/// Reads what can be read; `None` when nothing of the whole is left, or there are too many mistakes.
pub(super) fn read<T: DeserializeOwned>(document: &mut Document) -> Option<T> {
    for _ in 0..ROUNDS_MAX {
        let error = match serde_path_to_error::deserialize(document.root.value()) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let finding = Finding::of(&error.inner().to_string());
        let steps = steps_to(&document.root, error.path());
        if !mend(document, steps, finding) || document.is_full() {
            return None;
        }
    }
    None
}

/// The way from the root to the node at fault, as positions among the children.
fn steps_to(root: &Node, path: &Path) -> Vec<usize> {
    let mut steps = Vec::new();
    let mut node = root;
    for segment in path {
        let step = match (&node.content, segment) {
            (Content::Sequence(_), Segment::Seq { index }) => Some(*index),
            (Content::Mapping(_), Segment::Map { key }) => node.child_index(key),
            _ => None,
        };
        let Some((index, next)) = step.and_then(|index| Some((index, node.child(index)?))) else { break };
        steps.push(index);
        node = next;
    }
    steps
}

/// Notes the finding and changes the tree so that it does not come again; false when the root itself is at fault.
fn mend(document: &mut Document, mut steps: Vec<usize>, finding: Finding) -> bool {
    let node = document.root.at(&steps);
    if let Some(tried) = node.placeholder {
        return mend_placeholder(document, steps, tried, finding);
    }
    match finding {
        Finding::UnknownKey { key, remedy } => {
            // serde blames the key or, for some kinds of types, the mapping that holds it.
            steps.extend(node.child_index(&key));
            let node = document.root.at(&steps);
            let (path, position) = (node.path.clone(), node.key_position);
            if remedy.starts_with("did you mean") {
                // What it was meant to say is missing now, wherever that is.
                document.note_change(&path);
            }
            document.add(position, &path, Mistake::UNKNOWN_KEY.to_owned(), remedy);
            remove(&mut document.root, &steps)
        }
        Finding::MissingKey { key } => {
            let (path, position) = (node.path.clone(), node.key_position);
            let missing = child_path(&path, &key);
            if !document.is_changed(&missing) {
                document.add(position, &path, format!("the key {key} is missing"), "add it".to_owned());
                document.note_change(&missing);
            }
            let placeholder = Node::placeholder(position, missing);
            match &mut document.root.at_mut(&steps).content {
                Content::Mapping(entries) => {
                    entries.push((key, placeholder));
                    true
                }
                Content::Scalar(_) | Content::Sequence(_) => remove(&mut document.root, &steps),
            }
        }
        Finding::UnknownWord { message, remedy, .. } | Finding::WrongValue { message, remedy } => {
            let (path, position) = (node.path.clone(), node.position);
            document.add(position, &path, message, remedy);
            document.note_change(&path);
            remove(&mut document.root, &steps)
        }
    }
}

/// Tries the next value that may pass for the one that is missing; when there is none, what needs it goes.
fn mend_placeholder(document: &mut Document, mut steps: Vec<usize>, tried: usize, finding: Finding) -> bool {
    let next = match finding {
        Finding::UnknownWord { first_known: Some(word), .. } => Some(Value::String(word)),
        Finding::UnknownWord { first_known: None, .. }
        | Finding::UnknownKey { .. }
        | Finding::MissingKey { .. }
        | Finding::WrongValue { .. } => placeholder_value(tried),
    };
    let node = document.root.at_mut(&steps);
    if let Some(value) = next.filter(|_| tried < PLACEHOLDERS) {
        node.content = Content::Scalar(value);
        node.placeholder = Some(tried + 1);
        return true;
    }
    steps.pop();
    let path = document.root.at(&steps).path.clone();
    document.note_change(&path);
    remove(&mut document.root, &steps)
}

/// How many placeholders there are to try.
const PLACEHOLDERS: usize = 6;

fn placeholder_value(number: usize) -> Option<Value> {
    match number {
        0 => Some(Value::String("x".to_owned())),
        1 => Some(Value::Number(1.into())),
        2 => Some(Value::Bool(true)),
        3 => Some(Value::Sequence(Vec::new())),
        4 => Some(Value::Mapping(Mapping::new())),
        _ => None,
    }
}

fn remove(root: &mut Node, steps: &[usize]) -> bool {
    let Some((last, parents)) = steps.split_last() else { return false };
    match &mut root.at_mut(parents).content {
        Content::Scalar(_) => return false,
        Content::Sequence(items) => drop(items.remove(*last)),
        Content::Mapping(entries) => drop(entries.remove(*last)),
    }
    true
}

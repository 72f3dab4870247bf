//! What exec checks start.

use std::collections::BTreeMap;

use super::super::exec::ExecTarget;
use super::CheckSettings;
use crate::config::Mistake;

/// Words of the longest command.
pub(super) const WORDS_MAX: usize = 256;

impl CheckSettings {
    /// Arguments and values of the environment are never repeated in a mistake: they may be secrets.
    pub(super) fn resolve_exec(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Option<ExecTarget> {
        let before = mistakes.len();
        let command: Vec<_> = self.command.iter().flatten().map(|word| word.0.clone()).collect();
        let command_path = format!("{path}.command");
        let program = command.first().map_or("", String::as_str);
        if program.is_empty() {
            mistakes.push(Mistake::new(
                &command_path,
                "there is no program to start",
                "write a list: the program, and each of its arguments",
            ));
        } else if program.contains('/') && !program.starts_with('/') {
            mistakes.push(Mistake::new(
                &command_path,
                format!("{program:?} is a relative path, and the program is started in /"),
                "write its absolute path, or a name that is found in PATH",
            ));
        }
        if command.len() > WORDS_MAX {
            let message = format!("the command has {} words", command.len());
            mistakes.push(Mistake::new(&command_path, message, format!("write at most {WORDS_MAX}")));
        }
        if command.iter().any(|word| word.contains('\0')) {
            mistakes.push(Mistake::new(&command_path, "one of its words holds a NUL", "leave it out"));
        }
        let env: BTreeMap<_, _> =
            self.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
        for (name, value) in &env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                mistakes.push(Mistake::new(
                    format!("{path}.env.{name}"),
                    "it cannot stand in an environment",
                    "use a name without =, and no NUL",
                ));
            }
        }
        (mistakes.len() == before).then_some(ExecTarget { command, env })
    }
}

//! All checks, in the order in which they are made.

use super::check::Check;
use super::{certificates, control_service, directories, machine, node, settings, volume, volume_here};

/// Returns all checks.
pub(super) fn all() -> impl Iterator<Item = &'static Check> {
    let themes: [&[Check]; 8] = [
        settings::CHECKS,
        certificates::CHECKS,
        directories::CHECKS,
        machine::CHECKS,
        control_service::CHECKS,
        node::CHECKS,
        volume::CHECKS,
        volume_here::CHECKS,
    ];
    themes.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn checks_have_names_of_their_own_and_need_only_earlier_ones() {
        let mut names = BTreeSet::new();
        for check in all() {
            for need in check.needs {
                assert!(names.contains(need), "{} needs {need}", check.name);
            }
            assert!(names.insert(check.name), "{}", check.name);
        }
    }

    #[test]
    fn every_check_is_documented() {
        let page = include_str!("../../../../docs/commands.md");
        for check in all() {
            let row = format!("| `{}` |", check.name);
            assert!(page.contains(&row), "{} is not in docs/commands.md", check.name);
        }
    }
}

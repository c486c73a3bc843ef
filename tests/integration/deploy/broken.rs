//! Files that break a rule, and the problem that is reported for each.

use serde::Deserialize;
use serde_json::Value;

use super::systemd::HIDING;
use super::tree::{Tree, repository};

/// The table of changes, each of which breaks a rule.
const TABLE: &str = "tests/data/broken-deployments.jsonl";

const PROVIDER: &str = "deploy/mesos/resource-providers/flocker.json";
const MANAGED: &str = "deploy/mesos/csi-plugins-managed/flocker.json";
const UNMANAGED: &str = "deploy/mesos/csi-plugins-unmanaged/flocker.json";
const ISOLATOR: &str = "deploy/mesos/plugin/mesos-isolator.toml";
const UNIT: &str = "deploy/mesos/systemd/flocker-csi-mesos.service";

/// One change of a file, and the expected problem.
#[derive(Deserialize)]
struct Row {
    file: String,
    /// The file that the problem names, if that is another one.
    reported_file: Option<String>,
    #[serde(flatten)]
    change: Edit,
    /// The field in the problem.
    field: String,
    /// Part of the reason.
    says: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Edit {
    /// A value in JSON; null removes it.
    Json { at: String, value: Value },
    /// A piece of text, once.
    Text { replace: String, by: String },
}

impl Edit {
    fn make(&self, text: &str) -> String {
        match self {
            Self::Json { at, value } => {
                let mut json: Value = serde_json::from_str(text).unwrap();
                set(&mut json, at, value.clone());
                json.to_string()
            }
            Self::Text { replace, by } => {
                assert!(text.contains(replace), "{replace:?} exists and is replaced");
                text.replacen(replace, by, 1)
            }
        }
    }
}

fn set(json: &mut Value, pointer: &str, value: Value) {
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        *json = value;
        return;
    };
    let parent = json.pointer_mut(parent);
    match (parent.unwrap_or_else(|| panic!("{pointer} has a parent")), value) {
        (Value::Object(object), Value::Null) => {
            object.remove(key).unwrap_or_else(|| panic!("{pointer} exists"));
        }
        (Value::Object(object), value) => {
            object.insert(key.to_owned(), value);
        }
        (Value::Array(array), value) => match array.get_mut(key.parse::<usize>().unwrap()) {
            Some(element) => *element = value,
            None => array.push(value),
        },
        (other, _) => panic!("{other} has no members"),
    }
}

/// Returns the problems when files are changed, added, or, without a text, removed.
fn problems(changes: &[(&str, Option<String>)]) -> Vec<String> {
    let mut tree = Tree::shipped();
    for (file, text) in changes {
        match text {
            Some(text) => tree.0.insert((*file).to_owned(), text.clone()),
            None => tree.0.remove(*file),
        };
    }
    tree.parse().1
}

/// Checks that a problem is reported with its file, its field and the reason.
fn assert_reported(problems: &[String], file: &str, field: &str, says: &str) {
    let matches = |problem: &String| {
        let rest = problem
            .strip_prefix(file)
            .and_then(|rest| rest.strip_prefix(": "));
        rest.is_some_and(|rest| rest.contains(field) && rest.contains(says))
    };
    assert!(
        problems.iter().any(matches),
        "expected {file}: {field}: …{says}…, found\n{}",
        problems.join("\n")
    );
}

fn shipped(file: &str) -> String {
    Tree::shipped().0[file].clone()
}

#[test]
fn a_file_that_breaks_any_rule_is_refused_with_the_field_and_the_reason() {
    let table = std::fs::read_to_string(repository().join(TABLE)).unwrap();
    let mut changed = std::collections::BTreeSet::new();
    for (number, line) in table.lines().enumerate() {
        let row: Row = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(!row.field.is_empty() && !row.says.is_empty(), "{line}");
        let text = row.change.make(&shipped(&row.file));
        let problems = problems(&[(&row.file, Some(text))]);
        let reported_file = row.reported_file.as_deref().unwrap_or(&row.file);
        println!("{TABLE}, line {}: {line}", number + 1);
        assert_reported(&problems, reported_file, &row.field, &row.says);
        changed.insert(row.file);
    }
    let untouched: Vec<_> = Tree::shipped()
        .0
        .into_keys()
        .filter(|file| !changed.contains(file))
        .collect();
    assert_eq!(untouched, ["deploy/marathon/README.md"]);
}

#[test]
fn a_unit_that_hides_its_mounts_by_any_directive_is_refused() {
    for directive in HIDING {
        let added = format!("[Service]\n{directive}=yes\n");
        let unit = shipped(UNIT).replace("[Service]\n", &added);
        assert_reported(
            &problems(&[(UNIT, Some(unit))]),
            UNIT,
            directive,
            "lose what they write",
        );
    }
}

#[test]
fn directories_that_agents_read_whole_hold_plugins_of_different_types_and_nothing_else() {
    let directory = "deploy/mesos/csi-plugins-managed";
    let second = "deploy/mesos/csi-plugins-managed/second.json";
    let found = problems(&[(second, Some(shipped(MANAGED)))]);
    assert_reported(&found, directory, "type", "one of each");
    let found = problems(&[(second, Some(shipped(UNMANAGED)))]);
    assert_reported(&found, second, "containers", "nothing in the other");
    assert_reported(&problems(&[(MANAGED, None)]), directory, "files", "exits");
    for (file, text) in [
        ("deploy/mesos/csi-plugins-managed/README", "A plugin."),
        ("deploy/mesos/csi-plugins-unmanaged/flocker.json.bak", ""),
        ("deploy/mesos/resource-providers/.flocker.json.swp", ""),
    ] {
        assert_reported(
            &problems(&[(file, Some(text.to_owned()))]),
            file,
            "line 1",
            "value",
        );
    }
    let second = "deploy/mesos/resource-providers/second.json";
    let found = problems(&[(second, Some(shipped(PROVIDER)))]);
    assert_reported(
        &found,
        "deploy/mesos/resource-providers",
        "name",
        "another provider",
    );
}

#[test]
fn a_file_that_no_program_reads_is_refused() {
    let file = "deploy/mesos/notes.txt";
    assert_reported(&problems(&[(file, Some(String::new()))]), file, "name", "no rule");
    let file = "deploy/mesos/plugin/other.toml";
    let found = problems(&[(file, Some(shipped(ISOLATOR)))]);
    assert_reported(&found, file, "settings", "exactly one");
}

//! Names that differ from those of the recording: ids of nodes and datasets, and tags.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Pairs of a recorded name and the one of this run.
#[derive(Default)]
pub(crate) struct Names {
    ours: BTreeMap<String, String>,
}

impl Names {
    /// Records that two names denote the same, or returns the name that contradicts that.
    pub(crate) fn learn(&mut self, recorded: &str, ours: &str) -> Result<(), String> {
        for (known_recorded, known_ours) in &self.ours {
            if (known_recorded == recorded) != (known_ours == ours) {
                return Err(format!(
                    "{recorded} would be {ours}, but {known_recorded} is {known_ours}"
                ));
            }
        }
        self.ours.insert(recorded.to_owned(), ours.to_owned());
        Ok(())
    }

    pub(crate) fn knows(&self, recorded: &str) -> bool {
        self.ours.contains_key(recorded)
    }

    /// Replaces recorded names in a text by those of this run.
    pub(crate) fn ours(&self, text: &str) -> String {
        let pairs = self.ours.iter();
        replace(
            text,
            pairs.map(|(recorded, ours)| (recorded.as_str(), ours.as_str())),
        )
    }

    /// Replaces names of this run in a text by the recorded ones.
    pub(crate) fn recorded(&self, text: &str) -> String {
        let pairs = self.ours.iter();
        replace(
            text,
            pairs.map(|(recorded, ours)| (ours.as_str(), recorded.as_str())),
        )
    }
}

/// Replaces names that are all lower-case, or all upper-case.
fn replace<'a>(text: &str, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = text.to_owned();
    for (from, to) in pairs {
        for (from, to) in [
            (from.to_owned(), to.to_owned()),
            (from.to_uppercase(), to.to_uppercase()),
        ] {
            if text.contains(&from) {
                text = text.replace(&from, &to);
            }
        }
    }
    text
}

/// Replaces what differs between any two control services in a JSON body.
///
/// Those are the version, numbers of log entries, the remaining time of leases, and order: that of lists, of errors,
/// and of the items that an error quotes.
pub(crate) fn comparable(body: Value, method: &str) -> Value {
    match body {
        Value::String(text) if is_log_entry(&text) => "LOG".into(),
        Value::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(|item| comparable(item, method)).collect();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        Value::Object(mut fields) => {
            if fields.contains_key("flocker") {
                fields.insert("flocker".to_owned(), "VERSION".into());
            }
            // A POST answers with the value of the request.
            if method != "POST" && fields.get("expires").is_some_and(Value::is_f64) {
                fields.insert("expires".to_owned(), "REMAINING".into());
            }
            if let Some(Value::Array(errors)) = fields.get_mut("errors") {
                for error in errors.iter_mut() {
                    *error = error.as_str().map(in_order).into();
                }
                errors.sort_by_key(Value::to_string);
            }
            fields.into()
        }
        other => other,
    }
}

/// Returns whether a text is `<UUID>@/<number>`.
fn is_log_entry(text: &str) -> bool {
    text.split_once("@/").is_some_and(|(task, level)| {
        uuid::Uuid::parse_str(task).is_ok() && level.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// Sorts the items of the object that an error begins with; their order is that of a hash table.
fn in_order(error: &str) -> String {
    let object = error.strip_prefix('{').and_then(|rest| rest.rsplit_once('}'));
    let Some((items, complaint)) = object else {
        return error.to_owned();
    };
    let mut items: Vec<_> = items.split(", ").collect();
    items.sort_unstable();
    format!("{{{}}}{complaint}", items.join(", "))
}

#[test]
fn a_name_denotes_one_thing_and_keeps_its_case() {
    let mut names = Names::default();
    names.learn("d01", "5f2").unwrap();
    names.learn("d01", "5f2").unwrap();
    assert!(names.learn("d01", "5f3").is_err());
    assert!(names.learn("d02", "5f2").is_err());
    assert_eq!(names.ours("x/d01/D01"), "x/5f2/5F2");
    assert_eq!(names.recorded("x/5f2/5F2"), "x/d01/D01");
}

#[test]
fn order_and_numbers_of_log_entries_are_no_difference_but_values_and_their_types_are() {
    let of = |body: Value| comparable(body, "GET");
    let log = json!("07142090-da68-4f63-9648-c746db2a774e@/2");
    assert_eq!(of(log), "LOG");
    assert_ne!(of("07142090@/2".into()), "LOG");
    let errors = |errors: [&str; 2]| of(json!({"errors": errors}));
    assert_eq!(
        errors(["a", "{u'k': 1, u'l': 2} is bad"]),
        errors(["{u'l': 2, u'k': 1} is bad", "a"])
    );
    assert_ne!(errors(["a", "b"]), errors(["a", "a"]));
    let lease = |expires: Value| of(json!([{"expires": expires}]));
    assert_eq!(lease(1.5.into()), lease(0.5.into()));
    assert_ne!(lease(1.5.into()), lease(1.into()));
    assert_ne!(lease(1.5.into()), lease(Value::Null));
    assert_ne!(comparable(json!({"expires": 3.0}), "POST"), json!({"expires": 3}));
}

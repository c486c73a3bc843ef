//! Kubernetes objects as people and `kubectl` write them, in YAML or JSON.

use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The most that is read, in bytes: the objects of several thousand volumes.
const MOST_BYTES: usize = 16 << 20;
/// The most values, keys included, in one text.
const MOST_NODES: usize = 500_000;
/// The most documents in one text.
const MOST_DOCUMENTS: usize = 10_000;

/// An object, of which only kind and name are parsed.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: String,
    pub(super) name: String,
    value: Value,
}

impl Object {
    /// Parses the whole object.
    ///
    /// # Errors
    /// The field that is wrong, and why.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| error.to_string())
    }

    fn of(value: Value) -> Result<Self, String> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        match (text("/kind"), text("/metadata/name")) {
            (Some(kind), Some(name)) if !name.is_empty() => Ok(Self { kind, name, value }),
            (Some(kind), _) => Err(format!("an object of kind {kind} has no metadata.name")),
            (None, name) => {
                let called = name.map(|name| format!(" called {name}")).unwrap_or_default();
                Err(format!(
                    "an object{called} has no kind, so it is not a Kubernetes object"
                ))
            }
        }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Reads a file, or the standard input for `-`.
///
/// # Errors
/// It cannot be read, or is larger than any reasonable input.
pub(super) fn read(file: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let limit = MOST_BYTES as u64 + 1;
    let read = if file == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(Path::new(file)).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| format!("cannot read {}: {error}", called(file)))?;
    if bytes.len() > MOST_BYTES {
        return Err(format!(
            "{} has more than {} MiB: export the volumes in several parts",
            called(file),
            MOST_BYTES >> 20
        ));
    }
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", called(file)))
}

/// Returns the objects in a text; a list yields each of its objects.
///
/// # Errors
/// It is neither YAML nor JSON, or an element is not an object: each with its position or name.
pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Object>, Vec<String>> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: MOST_DOCUMENTS,
            max_events: 2 * MOST_NODES,
            max_nodes: MOST_NODES,
            max_total_scalar_bytes: MOST_BYTES,
        },
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        vec![format!(
            "{} cannot be read as YAML or JSON: {error}",
            called(file)
        )]
    })?;
    let (mut objects, mut problems) = (Vec::new(), Vec::new());
    for value in documents.into_iter().flat_map(items) {
        match Object::of(value) {
            Ok(object) => objects.push(object),
            Err(problem) => problems.push(format!("{}: {problem}", called(file))),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if objects.is_empty() {
        return Err(vec![format!("{} contains no object", called(file))]);
    }
    Ok(objects)
}

/// Returns the elements of a list; any other value is one element.
fn items(mut value: Value) -> Vec<Value> {
    let kind = value["kind"].as_str().and_then(|kind| kind.strip_suffix("List"));
    let kind = kind.map(str::to_owned);
    match (value.get_mut("items").map(Value::take), kind) {
        (Some(Value::Array(items)), Some(kind)) => {
            items.into_iter().map(|item| of_kind(item, &kind)).collect()
        }
        (Some(items), _) => {
            value["items"] = items;
            vec![value]
        }
        (None, _) => vec![value],
    }
}

/// Sets the kind of a list's object, which the API states once for all of them.
fn of_kind(mut item: Value, kind: &str) -> Value {
    if let Some(item) = item.as_object_mut().filter(|_| !kind.is_empty()) {
        item.entry("kind").or_insert_with(|| kind.into());
    }
    item
}

fn called(file: &str) -> &str {
    if file == "-" { "the standard input" } else { file }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        let objects = parse("-", text).unwrap();
        objects.iter().map(Object::to_string).collect()
    }

    fn refusal(text: &str) -> String {
        let problems = parse("pv.yaml", text).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        problems[0].clone()
    }

    #[test]
    fn objects_are_read_from_documents_and_lists_in_yaml_and_json() {
        let yaml = "---\n# nothing\n---\nkind: A\nmetadata: {name: a}\n---\nkind: AList\nitems:\n- kind: B\n  metadata:\n    \
                    name: b\n---\n{\"kind\": \"List\", \"items\": [\n\t{\"kind\": \"C\", \"metadata\": {\"name\": \"c\"}}]}\n";
        assert_eq!(names(yaml), ["A a", "B b", "C c"]);
        // As the API itself answers.
        let list = "kind: ThingList\nitems:\n- metadata: {name: a}\n- kind: Other\n  metadata: {name: b}\n";
        assert_eq!(names(list), ["Thing a", "Other b"]);
    }

    #[test]
    fn a_text_without_an_object_is_refused() {
        for text in ["", "# nothing", "---\n---\n", "kind: List\nitems: []\n"] {
            assert!(refusal(text).contains("pv.yaml contains no object"), "{text:?}");
        }
        for text in ["text", "- 1", "{a: 1}"] {
            assert!(refusal(text).contains("no kind"), "{text:?}");
        }
        assert!(refusal("kind: List\nitems: 5\n").contains("no metadata.name"));
    }

    #[test]
    fn malformed_text_is_refused_with_its_position() {
        for text in ["kind: [", "a: b: c", "{\"kind\": ", "a: 1\na: 2\n", "kind: 'x"] {
            let refused = refusal(text);
            assert!(
                refused.starts_with("pv.yaml cannot be read as YAML or JSON"),
                "{text:?}: {refused}"
            );
            assert!(refused.contains("line "), "{text:?}: {refused}");
            assert!(!refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn input_that_would_exhaust_memory_or_the_stack_is_refused() {
        let deep = "[".repeat(100_000);
        let deep_block: Vec<_> = (0..2_000).map(|depth| " ".repeat(depth) + "a:\n").collect();
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            writeln!(laughs, "a{level}: &a{level} [{aliases}]").unwrap();
        }
        let many = "- x\n".repeat(MOST_NODES + 1);
        let documents = "--- x\n".repeat(MOST_DOCUMENTS + 1);
        for text in [deep, deep_block.concat(), laughs, many, documents] {
            let refused = refusal(&text);
            assert!(
                refused.contains("cannot be read as YAML or JSON") && refused.len() < 1000,
                "{refused}"
            );
        }
    }

    #[test]
    fn a_file_is_read_whole_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let missing = read(&file("missing")).unwrap_err();
        assert!(
            missing.contains(&file("missing")) && missing.contains("cannot read"),
            "{missing}"
        );
        std::fs::write(file("latin1"), b"kind: \xe9").unwrap();
        assert!(read(&file("latin1")).unwrap_err().contains("not UTF-8 text"));
        let big = std::fs::File::create(file("big")).unwrap();
        big.set_len(1 << 40).unwrap();
        assert!(read(&file("big")).unwrap_err().contains("more than 16 MiB"));
        big.set_len(MOST_BYTES as u64).unwrap();
        assert_eq!(read(&file("big")).unwrap().len(), MOST_BYTES);
    }
}

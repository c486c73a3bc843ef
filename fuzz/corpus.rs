//! Runs the corpus of a function in the tests of its crate.

use std::path::{Path, PathBuf};

/// Calls a function with every file of its corpus. The last file name in the output is that of the failing input.
pub(crate) fn read_corpus(name: &str, function: fn(&[u8])) {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let corpus = above.find_map(|directory| {
        let corpus = directory.join("fuzz/corpus").join(name);
        corpus.is_dir().then_some(corpus)
    });
    let corpus = corpus.unwrap_or_else(|| panic!("{name} has no corpus"));
    let entries = corpus.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus of {name} is empty");
    for file in files {
        println!("{}", file.display());
        function(&std::fs::read(&file).unwrap());
    }
}

//! The functions that read foreign bytes: each accepts any bytes and panics only when it breaks a promise.
//!
//! `make fuzz` searches for bytes that make one panic (its programs are in `fuzz/`). `make test` runs each with its
//! corpus: examples of valid input, and every input that made it panic before.

mod request;

pub use self::request::request;
pub use crate::commands::export::fuzz::objects;
pub use crate::config::fuzz::{configuration, setting};
pub use crate::host::record;

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::corpus::read_corpus;
    use super::*;

    #[test]
    fn the_corpus_of_settings_keeps_every_promise() {
        read_corpus("setting", setting);
    }

    #[test]
    fn the_corpus_of_configuration_files_keeps_every_promise() {
        read_corpus("configuration", configuration);
    }

    #[test]
    fn the_corpus_of_objects_keeps_every_promise() {
        read_corpus("objects", objects);
    }

    #[test]
    fn the_corpus_of_requests_keeps_every_promise() {
        read_corpus("request", request);
    }

    #[test]
    fn the_corpus_of_staging_records_keeps_every_promise() {
        read_corpus("record", record);
    }

    #[test]
    fn every_fuzzed_function_has_a_corpus_and_a_test_that_reads_it() {
        let names = |directory: &str| -> BTreeSet<String> {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
            let entries = directory.read_dir().unwrap().map(|entry| entry.unwrap().path());
            entries
                .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
                .collect()
        };
        let targets = names("fuzz/fuzz_targets");
        assert_eq!(targets, names("fuzz/corpus"));
        let tests = [
            include_str!("mod.rs"),
            include_str!("../../flocker-client/src/fuzz.rs"),
            include_str!("../../host-fs/src/fuzz.rs"),
            include_str!("../../grpc-authority/src/fuzz.rs"),
        ];
        for target in targets {
            let read = format!("read_corpus(\"{target}\", ");
            assert!(tests.iter().any(|tests| tests.contains(&read)), "{target}");
        }
    }
}

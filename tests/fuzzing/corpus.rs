//! What fuzzing found once, and seeds that reach deep: every target takes them without a panic.

use std::{fs, path::Path};

use mainstay_tests::fuzz_targets::TARGETS;

#[test]
fn every_target_bears_its_corpus() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzzing/corpus").join(name);
        let files: Vec<_> = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{name}: {error}")).collect();
        assert!(!files.is_empty(), "{name} has no seed");
        for file in files {
            let path = file.unwrap().path();
            eprintln!("{}", path.display());
            target(&fs::read(path).unwrap());
        }
    }
}

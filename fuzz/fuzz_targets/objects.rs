#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flocker_csi::fuzz::objects(bytes));

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| grpc_authority::fuzz::authority(bytes));

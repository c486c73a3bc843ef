use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read};
use std::os::unix::net::UnixStream;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn remark(lost: u64) -> String {
    format!("{lost} lost")
}

fn output(stream: impl AsFd) -> Output {
    Output::new(stream.as_fd(), remark)
}

fn write(output: &Output, lines: usize) {
    for number in 0..lines {
        output.write_line(format!("line {number} {}\n", "x".repeat(100)).as_bytes());
    }
}

fn read_to_end(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

/// Asserts that the lines are those that were written, in order and whole, and that the rest is accounted for.
fn assert_accounted(text: &str, written: u64, losses: u64) {
    let mut whole = 0;
    let mut remarked = 0;
    for line in text.lines() {
        if let Some(lost) = line.strip_suffix(" lost") {
            remarked += lost.parse::<u64>().unwrap();
        } else {
            assert!(line.starts_with("line ") && line.ends_with("xxx"), "{line}");
            whole += 1;
        }
    }
    assert_eq!((whole + losses, remarked), (written, losses));
}

#[test]
fn a_pipe_that_is_not_read_loses_lines_and_says_how_many_once_it_is_read() {
    let (reader, writer) = std::io::pipe().unwrap();
    let counters = Counters::default();
    let output = output(&writer);
    write(&output, 2000);
    output.count_losses_in(&counters);
    let before = counters.get(Counter::LogLinesLost);
    assert!(before > 500, "{before}");
    write(&output, 10);
    assert_eq!(counters.get(Counter::LogLinesLost), before + 10);
    drain(&reader, |pipe| {
        write(&output, 1);
        output.flush(PATIENCE);
        drop((output, writer));
        assert_accounted(&read_to_end(pipe), 2011, before + 10);
    });
}

/// Reads what is in a pipe, and gives `rest` that and everything that follows.
fn drain(pipe: &PipeReader, rest: impl FnOnce(Box<dyn Read>)) {
    let mut buffer = vec![0; 1 << 20];
    let mut pipe = pipe.try_clone().unwrap();
    let read = pipe.read(&mut buffer).unwrap();
    buffer.truncate(read);
    rest(Box::new(io::Cursor::new(buffer).chain(pipe)));
}

#[test]
fn a_socket_that_is_not_read_loses_lines_and_tears_none() {
    let (mut reader, writer) = UnixStream::pair().unwrap();
    let output = output(&writer);
    write(&output, 20_000);
    let lost = output.losses.uncounted.load(Ordering::Relaxed);
    assert!(lost > 100, "{lost}");
    let mut first = vec![0; 1 << 16];
    let read = reader.read(&mut first).unwrap();
    first.truncate(read);
    write(&output, 1);
    output.flush(Duration::ZERO);
    drop((output, writer));
    assert_accounted(&read_to_end(io::Cursor::new(first).chain(reader)), 20_001, lost);
}

#[test]
fn a_reader_that_has_gone_costs_lines_and_nothing_else() {
    let (reader, writer) = std::io::pipe().unwrap();
    let output = output(&writer);
    drop(reader);
    write(&output, 3);
    output.flush(PATIENCE);
    assert_eq!(output.losses.uncounted.load(Ordering::Relaxed), 3);
}

#[test]
fn a_device_that_is_full_costs_lines_and_nothing_else() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = output(&full);
    write(&output, 3);
    output.flush(PATIENCE);
    assert_eq!(output.losses.uncounted.load(Ordering::Relaxed), 3);
}

#[test]
fn a_file_gets_every_line_and_keeps_what_was_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    std::fs::write(&path, "line before xxx\n").unwrap();
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    let output = output(&file);
    write(&output, 500);
    output.flush(PATIENCE);
    assert_accounted(&read_to_end(File::open(path).unwrap()), 501, 0);
}

#[test]
fn the_mode_of_a_stream_that_other_processes_share_stays() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let _output = output(&writer);
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    assert!(!flags.contains(OFlags::NONBLOCK));
}

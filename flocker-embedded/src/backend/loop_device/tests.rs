use super::*;

const BUFFERED: Attachment = Attachment {
    block_size: 512,
    direct: false,
};

fn attached() -> (tempfile::NamedTempFile, PathBuf) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let backing = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file.path())
        .unwrap();
    let device = attach(&backing, BUFFERED).unwrap();
    (file, device)
}

#[test]
fn a_file_gets_another_device_than_before() {
    let (file, former) = attached();
    clear(&former, file.path());
    wait_until_free(&former, file.path());
    let backing = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file.path())
        .unwrap();
    let device = attach_to_another(&backing, BUFFERED, &former).unwrap();
    assert_ne!(device, former);
    assert!(has_file(&device, file.path()).unwrap());
    clear(&device, file.path());
    wait_until_free(&device, file.path());
}

fn clear(device: &Path, file: &Path) {
    let attached = AttachedDevice::open(device, file).unwrap();
    attached.expect("the device has the file").clear().unwrap();
}

#[test]
fn a_device_that_has_another_file_is_not_taken_for_that_of_ours() {
    let ((file, device), (other_file, other_device)) = (attached(), attached());
    assert!(
        AttachedDevice::open(&other_device, file.path())
            .unwrap()
            .is_none()
    );
    for (device, file) in [(device, file), (other_device, other_file)] {
        clear(&device, file.path());
        wait_until_free(&device, file.path());
        assert!(AttachedDevice::open(&device, file.path()).unwrap().is_none());
    }
}

#[test]
fn a_device_keeps_its_file_while_it_is_held_open_whichever_process_frees_it() {
    let (file, device) = attached();
    let held = AttachedDevice::open(&device, file.path()).unwrap().unwrap();
    clear(&device, file.path());
    let other = tempfile::NamedTempFile::new().unwrap();
    assert!(!attach_to(&device, other.as_file(), BUFFERED).unwrap());
    assert!(has_file(&device, file.path()).unwrap());
    drop(held);
    wait_until_free(&device, file.path());
}

#[test]
fn a_device_that_was_removed_since_it_was_found_free_is_left_for_another() {
    let removed = Path::new("/dev/loop-removed");
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(!attach_to(removed, file.as_file(), BUFFERED).unwrap());
}

#[test]
fn a_device_whose_file_the_kernel_cannot_look_up_hides_no_other() {
    let (file, device) = attached();
    let mut survey = Survey::new().unwrap();
    // The request fails on a file that is not a loop device, as it does on a device whose file is on a failed file
    // system.
    let failed = File::open(file.path()).unwrap();
    survey.add("/dev/loop-failed".into(), "/failed/file".into(), Ok(Some(failed)));
    let fresh = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(survey.device_of(file.path()).unwrap(), Some(device.as_path()));
    assert_eq!(survey.device_of(fresh.path()).unwrap(), None);

    // One that cannot be opened may have any file that is not found on another device.
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    survey.add("/dev/loop-denied".into(), "/other/file".into(), Err(denied));
    assert_eq!(survey.device_of(file.path()).unwrap(), Some(device.as_path()));
    let error = survey.device_of(fresh.path()).unwrap_err().to_string();
    assert!(error.contains("/dev/loop-denied"), "{error}");
    clear(&device, file.path());
    wait_until_free(&device, file.path());
}

/// Other processes open all devices to examine them, and a device is not freed before they close it.
fn wait_until_free(device: &Path, file: &Path) {
    for _ in 0..100_000 {
        if !has_file(device, file).unwrap() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{} still has {}", device.display(), file.display());
}

#[test]
fn the_device_of_a_file_is_found_by_any_name_of_the_file() {
    let (file, device) = attached();
    let renamed = file.path().with_extension("renamed");
    fs::hard_link(file.path(), &renamed).unwrap();
    for name in [file.path(), &renamed] {
        assert_eq!(
            Survey::new().unwrap().device_of(name).unwrap(),
            Some(device.as_path())
        );
        assert!(has_file(&device, name).unwrap());
    }
    fs::remove_file(file.path()).unwrap();
    assert!(
        has_file(&device, &renamed).unwrap(),
        "the kernel has marked the old name as deleted"
    );

    clear(&device, &renamed);
    wait_until_free(&device, &renamed);
    assert_eq!(Survey::new().unwrap().device_of(&renamed).unwrap(), None);
    fs::remove_file(&renamed).unwrap();
}

#[test]
fn a_device_that_is_freed_while_it_is_examined_has_no_file() {
    const READS: usize = 20_000;
    let (file, device) = attached();
    let backing = file.reopen().unwrap();
    let reader = std::thread::spawn({
        let device = device.clone();
        move || {
            let mut without_file = 0;
            while without_file < READS {
                without_file += usize::from(backing_file(&device).unwrap().is_none());
            }
        }
    });
    while !reader.is_finished() {
        // Another process may take the device in between; the test continues with its next state.
        if let Some(attached) = AttachedDevice::open(&device, file.path()).unwrap() {
            attached.clear().unwrap();
        } else {
            match attach_to(&device, &backing, BUFFERED) {
                // The kernel is still freeing it.
                Err(error) if is(&error, Errno::NXIO) => {}
                attached => {
                    attached.unwrap();
                }
            }
        }
    }
    if let Some(attached) = AttachedDevice::open(&device, file.path()).unwrap() {
        attached.clear().unwrap();
        wait_until_free(&device, file.path());
    }
    reader.join().unwrap();
}

#[test]
fn a_cleared_device_keeps_its_file_as_long_as_a_process_has_it_open() {
    let (file, device) = attached();
    let opener = File::open(&device).unwrap();
    clear(&device, file.path());
    assert!(has_file(&device, file.path()).unwrap());
    assert_eq!(
        Survey::new().unwrap().device_of(file.path()).unwrap(),
        Some(device.as_path())
    );

    drop(opener);
    wait_until_free(&device, file.path());
}

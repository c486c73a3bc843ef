use super::super::lookup::layers_at;
use super::super::testing::{bind, in_own_namespace, tmpfs, tmpfs_named};
use super::*;
use proptest::prelude::*;
use std::os::unix::fs::symlink;
use std::path::Component;

fn target(path: &Path) -> Result<Target, TargetError> {
    TargetPath::parse(path.to_str().unwrap())?.resolve()
}

#[test]
fn redundant_slashes_and_dots_are_dropped() {
    assert_eq!(
        TargetPath::parse("//var/./lib//x/").unwrap().as_path(),
        Path::new("/var/lib/x")
    );
}

#[test]
fn a_path_that_can_be_no_mount_point_is_refused_with_its_reason() {
    let long = format!("/{}", "a/".repeat(2048));
    let name = format!("/{}", "a".repeat(256));
    for (path, reason) in [
        ("", "is empty"),
        ("relative/path", "is not absolute"),
        ("/a/../b", "contains \"..\""),
        ("/a\0b", "NUL"),
        ("/", "is the root directory"),
        ("/./", "is the root directory"),
        (long.as_str(), "4095"),
        (name.as_str(), "255"),
    ] {
        let error = TargetPath::parse(path).unwrap_err();
        assert!(error.to_string().contains(reason), "{path:?}: {error}");
    }
}

#[test]
fn links_above_the_target_are_followed_and_the_target_itself_may_be_none() {
    let root = tempfile::tempdir().unwrap();
    let real = root.path().canonicalize().unwrap().join("real");
    std::fs::create_dir(&real).unwrap();
    symlink(&real, root.path().join("link")).unwrap();
    symlink(&real, real.join("leaf")).unwrap();
    let found = target(&root.path().join("link/new")).unwrap();
    assert_eq!(
        (found.path(), found.exists()),
        (real.join("new").as_path(), false)
    );
    let error = target(&root.path().join("link/leaf")).unwrap_err();
    assert!(matches!(error, TargetError::SymbolicLink(path) if path == real.join("leaf")));
}

#[test]
fn files_in_the_way_are_told_apart_from_missing_directories() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().canonicalize().unwrap().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(target(&file), Err(TargetError::NotDirectory(_))));
    assert!(matches!(
        target(&file.join("below")),
        Err(TargetError::ParentNotDirectory(_))
    ));
    assert!(matches!(
        target(&file.join("far/below")),
        Err(TargetError::ParentNotDirectory(_))
    ));
    let missing = target(&root.path().join("missing/below")).unwrap_err();
    assert!(missing.is_missing(), "{missing}");
}

#[test]
fn a_directory_is_made_once_and_removed_only_when_empty() {
    let root = tempfile::tempdir().unwrap();
    let target = target(&root.path().join("target")).unwrap();
    assert!(target.ensure_directory().unwrap());
    assert!(!target.ensure_directory().unwrap());
    std::fs::write(target.join("data"), "precious").unwrap();
    assert!(matches!(target.remove_directory(), Err(TargetError::NotEmpty(_))));
    std::fs::remove_file(target.join("data")).unwrap();
    target.remove_directory().unwrap();
    target.remove_directory().unwrap();
    assert!(!target.path().exists());
}

#[test]
fn a_directory_that_is_not_ours_to_remove_is_only_looked_into() {
    let root = tempfile::tempdir().unwrap();
    let target = target(&root.path().join("target")).unwrap();
    target.check_empty().unwrap();
    std::fs::create_dir(target.path()).unwrap();
    target.check_empty().unwrap();
    std::fs::write(target.join("data"), "precious").unwrap();
    assert!(matches!(target.check_empty(), Err(TargetError::NotEmpty(_))));
    assert!(target.join("data").exists());
}

#[test]
fn what_a_mount_would_hide_is_named_and_can_be_set_aside() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    for name in ["target".to_owned(), "n".repeat(255)] {
        let target = target(&root.join(name)).unwrap();
        for kept in 1..=2 {
            target.ensure_directory().unwrap();
            target.refuse_content().unwrap();
            for file in ["a", "b", "c", "d"] {
                std::fs::write(target.join(file), kept.to_string()).unwrap();
            }
            let error = target.refuse_content().unwrap_err().to_string();
            assert!(error.contains("and more") && error.contains('"'), "{error}");
            let aside = target.set_aside().unwrap();
            assert_eq!(
                std::fs::read_to_string(aside.join("d")).unwrap(),
                kept.to_string()
            );
            assert!(!target.path().exists());
        }
    }
}

#[test]
fn both_ways_to_open_the_directory_above_agree() {
    let root = tempfile::tempdir().unwrap();
    let real = root.path().canonicalize().unwrap().join("real (deleted)");
    std::fs::create_dir(&real).unwrap();
    symlink(&real, root.path().join("link")).unwrap();
    symlink("link", root.path().join("second")).unwrap();
    symlink("loop", root.path().join("loop")).unwrap();
    std::fs::write(real.join("file"), "").unwrap();
    for name in ["real (deleted)", "link", "second"] {
        let path = root.path().join(name);
        assert_eq!(parent::open_parent(&path, Links::Trusted).unwrap().1, real);
        assert_eq!(parent::open_by_components(&path, Links::Trusted).unwrap().1, real);
    }
    for name in ["missing", "missing/below", "link/file", "link/file/below", "loop"] {
        let path = root.path().join(name);
        let code = |opened: Result<_, LookupError>| match opened {
            Err(LookupError::Io(error)) => error.raw_os_error(),
            other => panic!("{name}: {other:?}"),
        };
        let one = code(parent::open_parent(&path, Links::Trusted));
        let other = code(parent::open_by_components(&path, Links::Trusted));
        assert_eq!(one, other, "{name}");
    }
}

#[test]
fn both_ways_to_open_a_directory_below_agree() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("a/b")).unwrap();
    symlink("a", root.path().join("link")).unwrap();
    symlink("b", root.path().join("a/link")).unwrap();
    let (above, _) = parent::open_parent(root.path(), Links::Trusted).unwrap();
    for name in ["a", "a/b", "link", "link/b", "a/link", "missing", "a/missing"] {
        let one = parent::open_below(above.as_fd(), Path::new(name));
        let other = parent::open_name_by_name(above.as_fd(), Path::new(name));
        assert_eq!(one.is_ok(), other.is_ok(), "{name}: {one:?}, {other:?}");
        assert_eq!(one.is_ok(), matches!(name, "a" | "a/b"), "{name}");
    }
}

#[test]
fn a_directory_above_that_was_removed_is_missing() {
    let root = tempfile::tempdir().unwrap();
    let (removed, _) = {
        let path = root.path().join("removed");
        std::fs::create_dir(&path).unwrap();
        let opened = parent::open_parent(&path, Links::Trusted).unwrap();
        std::fs::remove_dir(&path).unwrap();
        opened
    };
    let error = parent::path_of(removed.as_fd()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_root_directory_is_no_target() {
    for path in ["/", "/a/.."] {
        assert!(matches!(
            Target::open(Path::new(path)),
            Err(TargetError::Invalid { .. })
        ));
    }
}

#[test]
fn a_magic_link_leads_to_no_target() {
    let error = target(Path::new("/proc/self/cwd/below")).unwrap_err();
    assert!(
        matches!(&error, TargetError::Io { source, .. } if source.raw_os_error() == Some(libc::ELOOP)),
        "{error}"
    );
}

#[test]
fn what_is_mounted_is_known_from_the_moment_of_opening() {
    in_own_namespace(|scratch| {
        let (plain, mounted) = (scratch.join("plain"), scratch.join("mounted"));
        std::fs::create_dir(&plain).unwrap();
        tmpfs_named("bottom", &mounted);
        tmpfs_named("top", &mounted);
        let (plain, missing) = (target(&plain).unwrap(), target(&scratch.join("missing")).unwrap());
        let mounted = target(&mounted).unwrap();
        assert_eq!(plain.visible().unwrap(), None);
        assert_eq!(missing.visible().unwrap(), None);
        assert_eq!(
            mounted.visible().unwrap(),
            layers_at(mounted.path()).unwrap().pop()
        );

        tmpfs(plain.path());
        assert_eq!(plain.visible().unwrap(), None);
        assert!(plain.refresh().unwrap().visible().unwrap().is_some());
        missing.ensure_directory().unwrap();
        assert!(!missing.exists() && missing.refresh().unwrap().exists());
    });
}

#[test]
fn a_mount_is_opened_with_its_description() {
    in_own_namespace(|scratch| {
        let volume = scratch.join("volume");
        tmpfs_named("volume", &volume);
        std::fs::create_dir_all(scratch.join("staging/plain")).unwrap();
        bind(&volume, &scratch.join("staging/alias"));
        symlink("alias", scratch.join("staging/link")).unwrap();
        let staging = target(&scratch.join("staging")).unwrap();
        let alias = staging.open_mount_below("alias").unwrap().unwrap();
        assert_eq!(
            Some(alias.mount()),
            layers_at(&scratch.join("staging/alias")).unwrap().last()
        );
        assert!(staging.open_mount().unwrap().is_none());
        for name in ["plain", "missing"] {
            assert!(staging.open_mount_below(name).unwrap().is_none(), "{name}");
        }
        assert!(staging.open_mount_below("link").is_err());
        let volume = target(&volume).unwrap().open_mount().unwrap().unwrap();
        assert_eq!(volume.mount().source, "volume");
    });
}

#[test]
fn everything_happens_in_the_directory_that_was_opened() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    std::fs::create_dir(path("above")).unwrap();
    std::fs::create_dir(path("other")).unwrap();
    let target = target(&path("above/target")).unwrap();
    std::fs::rename(path("above"), path("moved")).unwrap();
    symlink("other", path("above")).unwrap();
    assert!(target.ensure_directory().unwrap());
    assert!(path("moved/target").is_dir() && !path("other/target").exists());
    std::fs::create_dir(path("other/target")).unwrap();
    std::fs::write(path("other/target/data"), "precious").unwrap();
    target.check_empty().unwrap();
    target.remove_directory().unwrap();
    assert!(!path("moved/target").exists() && path("other/target/data").exists());
}

#[test]
fn a_link_is_followed_only_where_root_alone_can_replace_it() {
    use std::os::unix::fs::{PermissionsExt, chown, lchown};
    const NOBODY: Option<u32> = Some(65534);
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let (real, links) = (root.join("real"), root.join("links"));
    std::fs::create_dir_all(real.join("plain")).unwrap();
    std::fs::create_dir(&links).unwrap();
    symlink(&real, links.join("link")).unwrap();
    symlink("links/link", root.join("to-link")).unwrap();
    let mode = |mode| std::fs::set_permissions(&links, PermissionsExt::from_mode(mode)).unwrap();
    let refused = |path: &Path| {
        for opened in [
            Target::open(&path.join("target")).map(drop),
            parent::open_by_components(path, Links::Trusted)
                .map(drop)
                .map_err(|error| lookup_error(path, error)),
        ] {
            match opened {
                Err(TargetError::UntrustedLink(link)) => assert_eq!(link, links.join("link")),
                other => panic!("{}: {other:?}", path.display()),
            }
        }
    };
    for trusted in [0o755, 0o1777, 0o1775] {
        mode(trusted);
        let found = target(&links.join("link/target")).unwrap();
        assert_eq!(found.path(), real.join("target"), "{trusted:o}");
    }
    // A group may have any member, and an access control list shows as the group's rights.
    for open_to_others in [0o775, 0o757, 0o777] {
        mode(open_to_others);
        refused(&links.join("link"));
        refused(&root.join("to-link"));
        refused(&links.join("link/plain"));
    }
    // What is no link is opened wherever it is.
    std::fs::create_dir(links.join("plain")).unwrap();
    assert!(target(&links.join("plain/target")).is_ok());
    // The owner of a link in a sticky directory can replace it, and the owner of a directory everything in it.
    mode(0o1777);
    lchown(links.join("link"), NOBODY, None).unwrap();
    refused(&links.join("link"));
    lchown(links.join("link"), Some(0), None).unwrap();
    for owners in [0o755, 0o1755] {
        chown(&links, NOBODY, None).unwrap();
        mode(owners);
        refused(&links.join("link"));
    }
}

#[test]
fn a_resolved_path_with_a_new_link_in_it_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    assert!(Target::open_resolved(&root.join("a/b/target")).is_ok());
    std::fs::rename(root.join("a"), root.join("moved")).unwrap();
    symlink("moved", root.join("a")).unwrap();
    for opened in [
        Target::open_resolved(&root.join("a/b/target")).map(drop),
        parent::open_by_components(&root.join("a/b"), Links::Refused)
            .map(drop)
            .map_err(|error| lookup_error(&root, error)),
    ] {
        assert!(
            matches!(&opened, Err(TargetError::LinkOnTheWay(link)) if *link == root.join("a")),
            "{opened:?}"
        );
    }
}

#[test]
fn the_mount_at_a_target_is_the_same_by_the_whole_table() {
    in_own_namespace(|scratch| {
        std::fs::create_dir_all(scratch.join("above/plain")).unwrap();
        tmpfs_named("bottom", &scratch.join("above/mounted"));
        tmpfs_named("top", &scratch.join("above/mounted"));
        let open = |name: &str| target(&scratch.join("above").join(name)).unwrap();
        let targets = [open("plain"), open("missing"), open("mounted")];
        let same = |target: &Target| {
            let one = target.top_now().unwrap().map(|top| top.mount);
            let other = target.top_by_table().unwrap().map(|top| top.mount);
            assert_eq!(one, other, "{}", target.path().display());
            one
        };
        let found = targets.each_ref().map(same);
        assert!(found[0].is_none() && found[1].is_none());
        assert_eq!(found[2].as_ref().unwrap().source, "top");
        // The mount goes with the directory that was opened.
        std::fs::rename(scratch.join("above"), scratch.join("moved")).unwrap();
        assert_eq!(same(&targets[2]).unwrap().point, scratch.join("moved/mounted"));
        assert_eq!(same(&targets[0]), None);
    });
}

proptest! {
    #[test]
    fn an_accepted_path_is_absolute_and_stays_inside_the_kernel_limits(path in "[/.a\0-]{0,40}") {
        if let Ok(target) = TargetPath::parse(&path) {
            prop_assert!(target.as_path().is_absolute());
            prop_assert!(target.as_path().components().all(|part| part != Component::ParentDir));
            prop_assert_eq!(TargetPath::parse(target.as_path().to_str().unwrap()).unwrap(), target);
        }
    }
}

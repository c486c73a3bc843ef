//! The mount flags that an orchestrator may request.

use std::fmt;

use host_fs::mount::AttributeChange;
use rustix::mount::MountAttrFlags as Attr;

use crate::volume::did_you_mean;

/// The flags that belong to a mount rather than to its file system, with the attributes they set and clear.
const FLAGS: [(&str, Attr, Attr); 9] = [
    ("ro", Attr::MOUNT_ATTR_RDONLY, Attr::empty()),
    ("rw", Attr::empty(), Attr::MOUNT_ATTR_RDONLY),
    ("noatime", Attr::MOUNT_ATTR_NOATIME, Attr::MOUNT_ATTR__ATIME),
    ("relatime", Attr::MOUNT_ATTR_RELATIME, Attr::MOUNT_ATTR__ATIME),
    (
        "strictatime",
        Attr::MOUNT_ATTR_STRICTATIME,
        Attr::MOUNT_ATTR__ATIME,
    ),
    ("nodiratime", Attr::MOUNT_ATTR_NODIRATIME, Attr::empty()),
    ("nosuid", Attr::MOUNT_ATTR_NOSUID, Attr::empty()),
    ("nodev", Attr::MOUNT_ATTR_NODEV, Attr::empty()),
    ("noexec", Attr::MOUNT_ATTR_NOEXEC, Attr::empty()),
];

/// Flags of which only one can apply.
const EXCLUSIVE: [&[&str]; 2] = [&["ro", "rw"], &["noatime", "relatime", "strictatime"]];

/// Words that people write into `/etc/fstab` and that change nothing here: they request what a mount does anyway, or are
/// meant for those who mount at boot.
const WITHOUT_EFFECT: [&str; 10] = [
    "_netdev", "async", "auto", "defaults", "dev", "exec", "noauto", "nofail", "nouser", "suid",
];
/// The prefix of words that are comments for other programs, such as `x-systemd.automount`.
const COMMENT_PREFIX: &str = "x-";

/// Options of a file system; its first mount decides them, and Flocker makes that one.
const FILE_SYSTEM: [&str; 21] = [
    "acl",
    "barrier",
    "commit",
    "data",
    "dax",
    "delalloc",
    "dirsync",
    "discard",
    "errors",
    "gid",
    "iversion",
    "journal_checksum",
    "lazytime",
    "nobarrier",
    "nodiscard",
    "noload",
    "quota",
    "resuid",
    "sync",
    "uid",
    "user_xattr",
];

/// Words that request a kind of mount that the plugin chooses itself.
const OWN_CHOICE: [&str; 9] = [
    "bind", "move", "rbind", "remount", "rprivate", "rshared", "rslave", "shared", "user",
];

/// Why a set of mount flags cannot be honoured.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FlagError {
    /// The flag is an option of the file system.
    #[error(
        "mount flag {0:?} is an option of the file system, which is mounted by Flocker: \
         a bind mount cannot change it; supported are {list}", list = supported()
    )]
    FileSystem(&'static str),
    /// The flag does not describe how the mount behaves.
    #[error("mount flag {0:?} is not needed: the plugin decides how it mounts; supported are {list}", list = supported())]
    OwnChoice(&'static str),
    /// No such flag exists. Its value is not repeated, nor a word that may be one: errors are logged.
    #[error("mount flag number {number}{name} is unknown{similar}; supported are {list}", list = supported())]
    Unknown {
        /// Its name, in quotes, if it is known that it is one: it has a value, or resembles a supported flag.
        name: String,
        /// Its number among all flags of the request, from 1.
        number: usize,
        /// The supported flag that it resembles.
        similar: String,
    },
    /// Two flags contradict each other.
    #[error("mount flags {0:?} and {1:?} contradict each other")]
    Conflict(&'static str, &'static str),
}

fn supported() -> String {
    FLAGS.map(|(name, ..)| name).join(", ")
}

/// A consistent set of per-mount flags; a bind mount inherits all others from the mount it is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountFlags(AttributeChange);

impl MountFlags {
    /// Parses the flags of a request; each text is one flag or several, separated by commas.
    ///
    /// `readonly` is the request's own field of that name; it means the same as the flag `ro`, and wins over the flag `rw`,
    /// which storage classes have for all volumes. Words [without effect](Self::without_effect) are skipped.
    pub(crate) fn parse<S: AsRef<str>>(flags: &[S], readonly: bool) -> Result<MountFlags, FlagError> {
        let mut asked: Vec<&'static str> = Vec::new();
        let is_skipped = |word: &str| has_no_effect(word) || readonly && word == "rw";
        let numbered = words(flags).zip(1..);
        let effective = numbered.filter(|(word, _)| !is_skipped(word));
        for (word, number) in effective.chain(readonly.then_some(("ro", 0))) {
            let name = known(word, number)?;
            let rival = EXCLUSIVE
                .iter()
                .filter(|group| group.contains(&name))
                .find_map(|group| {
                    asked
                        .iter()
                        .find(|earlier| group.contains(earlier) && **earlier != name)
                });
            if let Some(rival) = rival {
                return Err(FlagError::Conflict(rival, name));
            }
            asked.push(name);
        }
        let mut parsed = MountFlags::default();
        for (_, set, clear) in FLAGS.iter().filter(|(name, ..)| asked.contains(name)) {
            parsed.0.set |= *set;
            parsed.0.clear |= *clear;
        }
        Ok(parsed)
    }

    /// Returns the names of the words of a request that change nothing.
    pub(crate) fn without_effect<S: AsRef<str>>(flags: &[S]) -> impl Iterator<Item = &str> {
        words(flags).filter(|word| has_no_effect(word)).map(name_of)
    }

    /// Returns whether the mount is read-only.
    pub(crate) fn read_only(self) -> bool {
        self.0.read_only()
    }

    /// Returns the attributes in which a mount with these flags differs from the mount it is bound from.
    pub(crate) fn change(self) -> AttributeChange {
        self.0
    }
}

impl fmt::Display for MountFlags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = FLAGS.iter().filter(|(name, set, clear)| {
            // It clears what the exclusive flags clear and sets nothing.
            let overruled = *name == "relatime" && self.0.set.intersects(Attr::MOUNT_ATTR__ATIME);
            self.0.set.contains(*set) && self.0.clear.contains(*clear) && !overruled
        });
        formatter.write_str(&asked.map(|(name, ..)| *name).collect::<Vec<_>>().join(","))
    }
}

fn words<S: AsRef<str>>(flags: &[S]) -> impl Iterator<Item = &str> {
    let words = flags.iter().flat_map(|flag| flag.as_ref().split(','));
    words.map(str::trim).filter(|word| !word.is_empty())
}

fn has_no_effect(word: &str) -> bool {
    WITHOUT_EFFECT.contains(&word) || word.starts_with(COMMENT_PREFIX)
}

/// Returns the text before the value, in the notation of mounts or of a YAML file.
fn name_of(word: &str) -> &str {
    word.split(['=', ':']).next().unwrap_or(word)
}

fn known(word: &str, number: usize) -> Result<&'static str, FlagError> {
    if let Some((name, ..)) = FLAGS.iter().find(|(name, ..)| *name == word) {
        return Ok(name);
    }
    let name = name_of(word);
    let named = |names: &[&'static str]| names.iter().find(|known| **known == name).copied();
    if let Some(name) = named(&FILE_SYSTEM) {
        return Err(FlagError::FileSystem(name));
    }
    if let Some(name) = named(&OWN_CHOICE) {
        return Err(FlagError::OwnChoice(name));
    }
    let similar = did_you_mean(name, FLAGS.map(|(name, ..)| name));
    let is_name = name != word || !similar.is_empty();
    let name = if is_name {
        format!(", {name:?},")
    } else {
        String::new()
    };
    Err(FlagError::Unknown {
        name,
        number,
        similar,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<MountFlags, FlagError> {
        MountFlags::parse(flags, false)
    }

    #[test]
    fn every_supported_flag_is_accepted_and_printed_again() {
        for (name, ..) in FLAGS {
            assert_eq!(parse(&[name]).unwrap().to_string(), name);
        }
        assert_eq!(parse(&[]).unwrap().to_string(), "");
    }

    #[test]
    fn flags_joined_by_commas_mean_the_same_as_a_list() {
        assert_eq!(
            parse(&["ro, noatime", "nosuid"]),
            parse(&["nosuid", "ro", "noatime"])
        );
        assert_eq!(parse(&["ro,noatime"]).unwrap().to_string(), "ro,noatime");
    }

    #[test]
    fn the_field_readonly_is_the_flag_ro() {
        assert_eq!(MountFlags::parse::<&str>(&[], true), parse(&["ro"]));
        assert_eq!(MountFlags::parse(&["ro"], true), parse(&["ro"]));
    }

    #[test]
    fn the_field_readonly_wins_over_the_flag_rw() {
        assert_eq!(
            MountFlags::parse(&["rw,noatime"], true),
            parse(&["ro", "noatime"])
        );
    }

    #[test]
    fn words_of_fstab_without_effect_are_skipped_and_returned() {
        let flags = [
            "defaults,noatime",
            "_netdev",
            "x-systemd.automount",
            "nosuid,suid",
        ];
        assert_eq!(parse(&flags), parse(&["noatime", "nosuid"]));
        assert_eq!(
            MountFlags::without_effect(&flags).collect::<Vec<_>>(),
            ["defaults", "_netdev", "x-systemd.automount", "suid"]
        );
        for word in WITHOUT_EFFECT {
            assert_eq!(parse(&[word]), Ok(MountFlags::default()), "{word}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(parse(&["ro", "rw"]), Err(FlagError::Conflict("ro", "rw")));
        assert_eq!(
            parse(&["noatime", "nodev", "strictatime"]),
            Err(FlagError::Conflict("noatime", "strictatime"))
        );
        assert!(parse(&["noatime", "noatime", "nodiratime"]).is_ok());
    }

    #[test]
    fn options_of_the_file_system_are_refused_with_the_reason() {
        for flag in ["discard", "data=journal", "sync", "errors=remount-ro"] {
            let error = parse(&[flag]).unwrap_err();
            let name = flag.split('=').next().unwrap();
            assert!(
                error.to_string().contains(&format!("mount flag {name:?} is")),
                "{error}"
            );
            assert!(error.to_string().contains("mounted by Flocker"), "{error}");
        }
    }

    #[test]
    fn a_misspelled_flag_is_refused_with_a_suggestion() {
        let error = parse(&["noatme"]).unwrap_err();
        assert!(error.to_string().contains("did you mean \"noatime\"?"), "{error}");
        assert!(
            !parse(&["nfsvers=4"])
                .unwrap_err()
                .to_string()
                .contains("did you mean")
        );
        assert_eq!(parse(&["bind"]), Err(FlagError::OwnChoice("bind")));
    }

    #[test]
    fn a_refusal_has_no_value_and_no_unknown_word() {
        for flag in [
            "user=bob%PASS",
            "password:PASS",
            "PASS",
            "bind=PASS",
            "data:PASS",
            "ro=PASS",
            "auto=PASS",
            "x_PASS",
        ] {
            let error = parse(&["ro", flag]).unwrap_err().to_string();
            assert!(!error.contains("PASS"), "{error}");
        }
        let skipped = ["x-systemd.automount=PASS", "x-a:PASS"];
        assert!(MountFlags::without_effect(&skipped).all(|word| !word.contains("PASS")));
    }

    #[test]
    fn flags_that_are_not_requested_are_inherited() {
        let inherited = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOATIME;
        assert_eq!(
            parse(&["ro", "relatime"]).unwrap().change().over(inherited),
            Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NOSUID
        );
    }
}

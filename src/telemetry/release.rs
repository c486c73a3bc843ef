//! Which release of the program this is.

/// The version, as the package has it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that a release was built from; `unknown` of other builds, and of sources without their repository.
pub const COMMIT: &str = env!("BUILD_COMMIT");

/// The version with the commit.
pub(crate) const VERSION_AND_COMMIT: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("BUILD_COMMIT"), ")");

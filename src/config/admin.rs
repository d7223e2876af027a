//! Where the operator reaches the server.

use std::path::{Path, PathBuf};

use super::read::Reader;

/// The admin socket; `None` if there is to be none.
pub(super) fn read_admin_socket(r: &mut Reader<'_>, data_dir: &Path) -> Option<PathBuf> {
    match r.path("admin_socket") {
        None => Some(data_dir.join("admin.sock")),
        Some(path) if path.as_os_str() == "off" => None,
        Some(path) => Some(path),
    }
}

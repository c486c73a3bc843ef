//! What a kubelet has to be told, and where it asks.

use std::path::{self, PathBuf};

use crate::config::Config;
use crate::server::Endpoint;

/// What a kubelet has to be told, and where it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The socket at which the kubelet asks.
    pub socket: Endpoint,
    /// The name of the driver.
    pub driver_name: String,
    /// The path of the plugin's own socket, as the kubelet sees it.
    pub endpoint: String,
}

impl Settings {
    /// Returns the settings, or `None` where no kubelet is to learn of the plugin.
    ///
    /// # Errors
    /// What is told is contradictory: one sentence.
    pub fn of(config: &Config) -> Result<Option<Self>, String> {
        let Some(directory) = &config.kubelet.kubelet_registration_dir else {
            return match config.kubelet.kubelet_endpoint {
                Some(_) => Err(
                    "kubelet_endpoint is told to the kubelet only with kubelet_registration_dir, \
                     which is missing"
                        .to_owned(),
                ),
                None => Ok(None),
            };
        };
        if !config.mode.serves_node() {
            return Err(
                "kubelet_registration_dir is for a plugin that serves a node: set mode to node or all, or leave \
                 kubelet_registration_dir out"
                    .to_owned(),
            );
        }
        let driver_name = config.plugin.driver_name.clone();
        let socket = directory.join(format!("{driver_name}-reg.sock"));
        let text = |path: PathBuf| {
            path.into_os_string().into_string().map_err(|path| {
                format!(
                    "{} is not UTF-8, as paths told to a kubelet have to be",
                    path.display()
                )
            })
        };
        Ok(Some(Self {
            socket: text(socket)?
                .parse()
                .map_err(|error| format!("the plugin cannot be registered with the kubelet: {error}"))?,
            driver_name,
            endpoint: text(endpoint(config)?)?,
        }))
    }
}

fn endpoint(config: &Config) -> Result<PathBuf, String> {
    match (&config.plugin.endpoint, &config.kubelet.kubelet_endpoint) {
        (Endpoint::Tcp(_), _) => Err(format!(
            "the kubelet reaches plugins at Unix sockets alone, and the endpoint is {}: with \
             kubelet_registration_dir, set endpoint to unix:///PATH",
            config.plugin.endpoint
        )),
        (Endpoint::Unix(_), Some(told)) => Ok(told.clone()),
        (Endpoint::Unix(path), None) => {
            path::absolute(path).map_err(|error| format!("cannot tell where {} is: {error}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::{Cli, Command};

    fn settings(flags: &[&str]) -> Result<Option<Settings>, String> {
        let arguments: Vec<_> = ["flocker-csi", "serve", "--control-service=https://10.0.0.1"]
            .iter()
            .chain(flags)
            .map(OsString::from)
            .collect();
        let cli = Cli::read(&arguments, &std::collections::BTreeMap::new())
            .unwrap()
            .0;
        let Command::Serve(serve) = cli.command else {
            panic!("not serve");
        };
        Settings::of(&serve.config)
    }

    const DIRECTORY: &str = "--kubelet-registration-dir=/k/plugins_registry";

    #[test]
    fn the_kubelet_is_told_the_endpoint_unless_it_sees_that_elsewhere() {
        let told = settings(&[DIRECTORY, "--endpoint=unix:///k/plugins/f/csi.sock"])
            .unwrap()
            .unwrap();
        assert_eq!(
            told.socket.to_string(),
            "unix:///k/plugins_registry/flocker.csi.clusterhq.com-reg.sock"
        );
        assert_eq!(told.driver_name, "flocker.csi.clusterhq.com");
        assert_eq!(told.endpoint, "/k/plugins/f/csi.sock");

        let elsewhere = [
            "--endpoint=/csi/csi.sock",
            "--kubelet-endpoint=/k/plugins/f/csi.sock",
        ];
        let told = settings(&[DIRECTORY, elsewhere[0], elsewhere[1], "--mode=node"])
            .unwrap()
            .unwrap();
        assert_eq!(told.endpoint, "/k/plugins/f/csi.sock");

        let relative = settings(&[DIRECTORY, "--endpoint=csi.sock"]).unwrap().unwrap();
        assert_eq!(
            relative.endpoint,
            path::absolute("csi.sock").unwrap().to_str().unwrap()
        );
    }

    #[test]
    fn without_a_directory_no_kubelet_is_told() {
        assert_eq!(settings(&[]), Ok(None));
        assert_eq!(settings(&["--mode=controller"]), Ok(None));
    }

    #[test]
    fn what_no_kubelet_can_use_is_refused_with_the_setting_to_change() {
        let long = format!("--kubelet-registration-dir=/{}", "k".repeat(90));
        for (flags, part) in [
            (vec![DIRECTORY, "--mode=controller"], "set mode to node or all"),
            (
                vec![DIRECTORY, "--endpoint=tcp://127.0.0.1:1"],
                "set endpoint to unix:///PATH",
            ),
            (
                vec!["--kubelet-endpoint=/k/csi.sock"],
                "kubelet_registration_dir, which is missing",
            ),
            (vec![&*long], "a Unix socket has at most 107"),
        ] {
            let refused = settings(&flags).unwrap_err();
            assert!(refused.contains(part), "{flags:?}: {refused}");
        }
    }
}

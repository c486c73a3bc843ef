//! The settings of the registration with a kubelet.

use std::path::{self, PathBuf};

use crate::config::Config;
use crate::config::Endpoint;

/// The settings of the registration with a kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegistrationSettings {
    /// The registration socket, in a directory that the kubelet watches.
    pub socket: Endpoint,
    /// The name of the driver.
    pub driver_name: String,
    /// The path of the plugin's CSI socket in the kubelet's file system.
    pub endpoint: String,
}

impl RegistrationSettings {
    /// Returns the settings, or `None` where the plugin does not register itself.
    ///
    /// # Errors
    /// The configuration is contradictory: one sentence.
    pub(crate) fn of(config: &Config) -> Result<Option<Self>, String> {
        let Some(directory) = &config.kubelet.kubelet_registration_dir else {
            return match config.kubelet.kubelet_endpoint {
                Some(_) => Err(
                    "kubelet_endpoint has an effect only with kubelet_registration_dir, which is not set: set \
                     that, or leave kubelet_endpoint out"
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
                    "{} is not UTF-8, and the kubelet accepts only UTF-8: choose another path",
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
            "the kubelet connects only to Unix sockets, and the endpoint is {}: with kubelet_registration_dir, set endpoint \
             to unix:///PATH",
            config.plugin.endpoint
        )),
        (Endpoint::Unix(_), Some(path)) => Ok(path.clone()),
        (Endpoint::Unix(path), None) => path::absolute(path).map_err(|error| {
            format!(
                "cannot resolve the endpoint {} from the working directory: {error}",
                path.display()
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::commands::cli::{Cli, Command};

    fn settings(flags: &[&str]) -> Result<Option<RegistrationSettings>, String> {
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
        RegistrationSettings::of(&serve.config)
    }

    const DIRECTORY: &str = "--kubelet-registration-dir=/k/plugins_registry";

    #[test]
    fn the_kubelet_receives_the_endpoint_unless_kubelet_endpoint_is_set() {
        let found = settings(&[DIRECTORY, "--endpoint=unix:///k/plugins/f/csi.sock"])
            .unwrap()
            .unwrap();
        assert_eq!(
            found.socket.to_string(),
            "unix:///k/plugins_registry/flocker.csi.clusterhq.com-reg.sock"
        );
        assert_eq!(found.driver_name, "flocker.csi.clusterhq.com");
        assert_eq!(found.endpoint, "/k/plugins/f/csi.sock");

        let elsewhere = [
            "--endpoint=/csi/csi.sock",
            "--kubelet-endpoint=/k/plugins/f/csi.sock",
        ];
        let found = settings(&[DIRECTORY, elsewhere[0], elsewhere[1], "--mode=node"])
            .unwrap()
            .unwrap();
        assert_eq!(found.endpoint, "/k/plugins/f/csi.sock");

        let relative = settings(&[DIRECTORY, "--endpoint=csi.sock"]).unwrap().unwrap();
        assert_eq!(
            relative.endpoint,
            path::absolute("csi.sock").unwrap().to_str().unwrap()
        );
    }

    #[test]
    fn without_a_directory_the_plugin_does_not_register() {
        assert_eq!(settings(&[]), Ok(None));
        assert_eq!(settings(&["--mode=controller"]), Ok(None));
    }

    #[test]
    fn settings_that_no_kubelet_can_use_are_refused_with_the_setting_to_change() {
        let long = format!("--kubelet-registration-dir=/{}", "k".repeat(90));
        for (flags, part) in [
            (vec![DIRECTORY, "--mode=controller"], "set mode to node or all"),
            (
                vec![
                    DIRECTORY,
                    "--endpoint=tcp://127.0.0.1:1",
                    "--allow-unauthenticated-tcp",
                ],
                "set endpoint to unix:///PATH",
            ),
            (
                vec!["--kubelet-endpoint=/k/csi.sock"],
                "kubelet_registration_dir, which is not set",
            ),
            (vec![&*long], "a Unix socket has at most 107"),
        ] {
            let refused = settings(&flags).unwrap_err();
            assert!(refused.contains(part), "{flags:?}: {refused}");
        }
    }
}

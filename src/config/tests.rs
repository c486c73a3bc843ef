//! Settings from all three sources, and what is refused in each.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::layers::{Environment, Refusal};
use super::secrets::shown;
use super::{Config, ListScope, Mode};
use crate::commands::cli::{Cli, Command};
use crate::config::Endpoint;
use crate::flocker::attach::Takeover;
use crate::flocker::provisioning::Pool;
use crate::volume::{Namespace, Topology};

/// The only setting that `serve` requires.
const URL: &str = "--control-service=https://10.0.0.1";

fn read(
    command: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<(Cli, Vec<String>), Refusal> {
    let arguments: Vec<_> = ["flocker-csi", command]
        .iter()
        .chain(arguments)
        .map(OsString::from)
        .collect();
    let environment: Environment = environment
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect();
    Cli::read(&arguments, &environment)
}

fn serve(arguments: &[&str], environment: &[(&str, &str)]) -> Config {
    match read("serve", arguments, environment).unwrap().0.command {
        Command::Serve(args) => args.config,
        other => panic!("{other:?}"),
    }
}

/// Returns the messages about wrong settings, one line for each.
fn refused(command: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    match read(command, arguments, environment) {
        Err(Refusal::Settings(problems)) => problems.join("\n"),
        Err(Refusal::CommandLine(error)) => error.to_string(),
        Ok((cli, _)) => panic!("accepted: {cli:?}"),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = serve(&[URL], &[]);
    assert_eq!(config.mode, Mode::All);
    assert_eq!(
        config.plugin.endpoint,
        Endpoint::Unix("/run/flocker-csi/csi.sock".into())
    );
    assert_eq!(config.plugin.driver_name, "flocker.csi.clusterhq.com");
    assert_eq!(
        config.plugin.namespace(),
        Namespace::new("flocker.csi.clusterhq.com")
    );
    assert_eq!(config.plugin.device_dir, Path::new("/dev/flocker-csi"));
    assert_eq!(config.plugin.list_scope, ListScope::Cluster);
    assert_eq!(config.plugin.default_size, 10 << 30);
    assert_eq!(config.plugin.allocation_unit, 1 << 20);
    assert!(!config.plugin.create_on_first_use);
    assert_eq!(config.plugin.max_volumes_per_node, 0);
    assert_eq!(config.plugin.topology, Topology::Off);
    assert_eq!(
        config.flocker.control_service.to_string(),
        "https://10.0.0.1:4523"
    );
    assert_eq!(config.flocker.user_key, Path::new("/etc/flocker/plugin.key"));
    assert_eq!(config.flocker.server_name, "control-service");
    assert_eq!(config.node_loss.takeover, Takeover::Never);
    assert_eq!(config.node_loss.takeover_grace, Duration::from_secs(180));
    assert_eq!(config.node.node_id, None);
    assert_eq!(config.node.mount_root, Path::new("/flocker"));
    assert_eq!(config.node.state_dir, Path::new("/var/lib/flocker-csi"));
    assert_eq!(config.node.abandoned_grace, Duration::from_secs(60));
    assert!(!config.node.only_nodes_attach);
    assert_eq!(config.pools, []);
    assert_eq!(config.log.log, "info");
}

#[test]
fn a_flag_overrides_the_environment_and_that_overrides_the_file() {
    let file = file("driver_name = \"file.x\"\nnamespace = \"file\"\nserver_name = \"file\"\n");
    let environment = [
        ("FLOCKER_CSI_CONFIG", path(&file)),
        ("FLOCKER_CSI_DRIVER_NAME", "env.x"),
        ("FLOCKER_CSI_NAMESPACE", "env"),
    ];
    let config = serve(&[URL, "--driver-name", "flag.x"], &environment);
    assert_eq!(config.plugin.driver_name, "flag.x");
    assert_eq!(config.plugin.namespace(), Namespace::new("env"));
    assert_eq!(config.flocker.server_name, "file");
}

#[test]
fn every_setting_can_come_from_any_source() {
    let text = "endpoint = \"tcp://127.0.0.1:10000\"\ncontrol_service = \"https://[fd00::1]\"\nlist_scope = \"node\"\n\
                takeover = \"node-gone\"\ntakeover_grace = \"3m\"\nmax_volumes_per_node = 21\n\
                create_on_first_use = true\nallow_unauthenticated_tcp = true\n\
                metrics_address = \"[10.0.0.7]:9808\"\notlp_endpoint = \"http://10.0.0.8:4318\"\n\
                kubelet_registration_dir = \"/k/plugins_registry\"\nkubelet_endpoint = \"/k/csi.sock\"\n\
                [[pool]]\ncapacity = \"10TiB\"\n[[pool]]\nprofile = \"gold\"\ncapacity = \"1TiB\"\nper_node = true\n";
    let file = file(text);
    let from_file = serve(&["--config", path(&file)], &[]);
    let from_flags = serve(
        &[
            "--endpoint=tcp://127.0.0.1:10000",
            "--allow-unauthenticated-tcp",
            "--control-service=https://[fd00::1]",
            "--list-scope=node",
            "--takeover=node-gone",
            "--takeover-grace=3m",
            "--max-volumes-per-node=21",
            "--create-on-first-use",
            "--metrics-address=10.0.0.7:9808",
            "--otlp-endpoint=http://10.0.0.8:4318/v1/traces",
            "--kubelet-registration-dir=/k/plugins_registry",
            "--kubelet-endpoint=unix:///k/csi.sock",
            "--pool=capacity=10TiB",
            "--pool=profile=gold,capacity=1TiB,per_node=true",
        ],
        &[],
    );
    assert_eq!(format!("{from_file:?}"), format!("{from_flags:?}"));
    assert_eq!(from_file.pools.len(), 2);
    let from_environment = serve(
        &[URL, "--config", path(&file)],
        &[("FLOCKER_CSI_POOL", "profile=silver,capacity=1GiB")],
    );
    let silver = Pool {
        profile: Some("silver".to_owned()),
        capacity: 1 << 30,
        per_node: false,
    };
    assert_eq!(from_environment.pools, [silver]);
}

#[test]
fn the_endpoint_of_orchestrators_variable_is_used_unless_ours_is_set() {
    let csi = ("CSI_ENDPOINT", "unix:///csi/csi.sock");
    assert_eq!(
        serve(&[URL], &[csi]).plugin.endpoint,
        Endpoint::Unix("/csi/csi.sock".into())
    );
    let own = ("FLOCKER_CSI_ENDPOINT", "/own.sock");
    assert_eq!(
        serve(&[URL], &[csi, own]).plugin.endpoint,
        Endpoint::Unix("/own.sock".into())
    );
    let empty = ("FLOCKER_CSI_ENDPOINT", "");
    assert_eq!(
        serve(&[URL], &[csi, empty]).plugin.endpoint,
        Endpoint::Unix("/csi/csi.sock".into())
    );
}

#[test]
fn a_variable_that_resembles_a_setting_causes_a_warning() {
    let environment = [
        ("FLOCKER_CSI_DEFAULT_SIZ", "1GiB"),
        ("FLOCKER_CSI_SERVICE_HOST", "10.96.0.7"),
        ("FLOCKER_CSI_PORT_10000_TCP", "tcp://10.96.0.7:10000"),
        ("PATH", "/bin"),
    ];
    let (_, warnings) = read("serve", &[URL], &environment).unwrap();
    let expected =
        "the environment variable FLOCKER_CSI_DEFAULT_SIZ is not a setting (did you mean \"default_size\"?)";
    assert_eq!(warnings, [expected]);
    let (_, warnings) = read("demo", &[], &[("FLOCKER_CSI_STATE_DIR", "/state")]).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn relative_paths_are_resolved_from_the_working_directory() {
    let config = serve(&[URL, "--state-dir=state"], &[]);
    assert_eq!(
        config.node.state_dir,
        std::env::current_dir().unwrap().join("state")
    );
}

#[test]
fn an_invalid_value_is_refused_in_every_source_with_the_expected_form() {
    let long_path = format!("unix:///{}/csi.sock", "d".repeat(100));
    let cases = [
        (
            "mode",
            "nods",
            "expected one of all, controller, node",
            "possible values: all, controller, node",
        ),
        ("endpoint", "tcp://0.0.0.0:10000", "not a loopback address", ""),
        (
            "endpoint",
            "http://127.0.0.1:1",
            "scheme \"http\" is not supported",
            "",
        ),
        ("endpoint", long_path.as_str(), "at most 107", ""),
        (
            "control_service",
            "http://10.0.0.1:4523",
            "HTTPS only; expected https://HOST[:PORT]",
            "",
        ),
        ("control_service", "10.0.0.1", "expected https://HOST[:PORT]", ""),
        (
            "driver_name",
            "flocker csi",
            "expected a name like a domain's",
            "",
        ),
        ("driver_name", "flocker1", "with a letter at either end", ""),
        ("server_name", "https://x", "expected a host name", ""),
        ("node_id", "node-1", "expected a UUID such as", ""),
        ("default_size", "10GB", "expected a binary unit (GiB)", ""),
        ("default_size", "1MiB", "expected at least 64 MiB", ""),
        ("allocation_unit", "1.5MiB", "expected a size such as 10GiB", ""),
        (
            "takeover",
            "gone",
            "expected one of never, node-gone",
            "possible values: never, node-gone",
        ),
        ("takeover_grace", "180", "expected a time such as 180s or 3m", ""),
        (
            "max_volumes_per_node",
            "-1",
            "expected a whole number, 0 or more",
            "",
        ),
        (
            "create_on_first_use",
            "yes",
            "expected one of true, false",
            "possible values: true, false",
        ),
        (
            "list_scope",
            "host",
            "expected one of cluster, node",
            "possible values: cluster, node",
        ),
        (
            "provision_wait",
            "done",
            "expected one of backed, declared",
            "possible values: backed, declared",
        ),
        ("pool", "capasity=1TiB", "did you mean \"capacity\"?", ""),
        (
            "log_format",
            "xml",
            "expected one of text, json",
            "possible values: text, json",
        ),
        ("log", "loud", "expected a level", ""),
    ];
    for (key, value, expected, expected_of_a_flag) in cases {
        assert_refused_in_every_source(key, value, expected, expected_of_a_flag);
    }
}

/// Checks that a value is refused in the file, in the environment and as a flag.
fn assert_refused_in_every_source(key: &str, value: &str, expected: &str, expected_of_a_flag: &str) {
    let file = file(&format!("# one line before\n{key} = {value:?}\n"));
    let error = refused("serve", &[URL, "--config", path(&file)], &[]);
    assert_eq!(error.lines().count(), 1, "{error}");
    let shown = shown(value);
    let start = format!("{}, line 2: {key} = {shown:?}: ", path(&file));
    assert!(error.starts_with(&start) && error.contains(expected), "{error}");

    let variable = format!("FLOCKER_CSI_{}", key.to_uppercase());
    let error = refused("serve", &[URL], &[(&variable, value)]);
    assert!(
        error.starts_with(&format!("{variable} = {shown:?}: ")) && error.contains(expected),
        "{error}"
    );

    let flag = format!("--{}", key.replace('_', "-"));
    let error = refused("serve", &[&format!("{flag}={value}")], &[]);
    let expected = if expected_of_a_flag.is_empty() {
        expected
    } else {
        expected_of_a_flag
    };
    assert!(
        error.contains(&format!("'{shown}'")) && error.contains(&flag),
        "{error}"
    );
    assert!(error.contains(expected), "{error}");
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    for (line, expected) in [
        (
            "default_size = 1.5",
            "default_size: expected a text or a whole number, found: float",
        ),
        (
            "mode = true",
            "mode = \"true\": expected one of all, controller, node",
        ),
        ("driver_name = 5", "driver_name = \"5\": expected a name"),
        (
            "driver_name = [\"a.a\", \"b.b\"]",
            "driver_name: expected one value, found 2",
        ),
        (
            "node_id = 2026-01-01",
            "node_id: expected a text or a whole number, found: datetime",
        ),
        (
            "[[pool]]\ncapacity = [1]",
            "pool: expected a text or a whole number, found: array",
        ),
        (
            "[[pool]]\nprofile = \"gold\"",
            "pool = \"profile=…\": capacity is missing",
        ),
        (
            "max_volumes_per_node = 99999999999999999999",
            "expected a smaller number",
        ),
    ] {
        let file = file(line);
        let error = refused("serve", &[URL, "--config", path(&file)], &[]);
        assert!(
            error.starts_with(&format!("{}, line 1: ", path(&file))) && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn unknown_keys_are_refused_with_their_line_and_a_suggestion() {
    for (line, key, suggestion) in [
        (
            "control-service = \"https://10.0.0.1\"",
            "control-service",
            " (did you mean \"control_service\"?)",
        ),
        (
            "defualt_size = \"1GiB\"",
            "defualt_size",
            " (did you mean \"default_size\"?)",
        ),
        ("[flocker]\ncontrol_service = \"https://10.0.0.1\"", "flocker", ""),
        (
            "take_over = \"node-gone\"",
            "take_over",
            " (did you mean \"takeover\"?)",
        ),
        (
            "metrics_addres = \"127.0.0.1:9090\"",
            "metrics_addres",
            " (did you mean \"metrics_address\"?)",
        ),
        ("config = \"/other.toml\"", "config", ""),
        ("check_config = true", "check_config", ""),
    ] {
        let file = file(&format!("\n\n{line}\n"));
        let error = refused("serve", &[URL, "--config", path(&file)], &[]);
        assert_eq!(
            error,
            format!("{}, line 3: unknown key \"{key}\"{suggestion}", path(&file))
        );
    }
    let error = refused("serve", &[URL, "--stat-dir=/x"], &[]);
    assert!(
        error.contains("unexpected argument '--stat-dir'") && error.contains("'--state-dir'"),
        "{error}"
    );
}

#[test]
fn every_wrong_setting_is_reported_at_once() {
    let file = file("mode = \"nods\"\nlgo = \"info\"\n");
    let error = refused(
        "serve",
        &["--config", path(&file)],
        &[("FLOCKER_CSI_NODE_ID", "x")],
    );
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let error = refused("serve", &[URL, "--config", "/nowhere/flocker-csi.toml"], &[]);
    assert!(
        error.starts_with("cannot read the configuration file /nowhere/flocker-csi.toml: No such file"),
        "{error}"
    );
    let broken = file("mode = \"all\"\nlog = \n");
    let error = refused("serve", &[URL, "--config", path(&broken)], &[]);
    assert!(
        error.starts_with(&format!("{}, line 2: ", path(&broken))),
        "{error}"
    );
}

#[test]
fn the_control_service_is_the_only_required_setting() {
    assert_eq!(
        refused("serve", &[], &[]),
        "control_service is not set: give it as --control-service <URL>, as FLOCKER_CSI_CONTROL_SERVICE in the \
         environment, or as control_service in the configuration file"
    );
    assert_eq!(
        serve(&[], &[("FLOCKER_CSI_CONTROL_SERVICE", "https://x")])
            .flocker
            .control_service
            .host(),
        "x"
    );
}

#[test]
fn a_setting_of_serve_alone_is_unknown_to_standalone() {
    let file = file("control_service = \"https://10.0.0.1\"\n");
    let error = refused("standalone", &["--data-dir=/data", "--config", path(&file)], &[]);
    assert!(error.contains("unknown key \"control_service\""), "{error}");
    let error = refused("standalone", &[], &[]);
    assert!(
        error.starts_with("data_dir is not set") && error.contains("configuration file"),
        "{error}"
    );
    let error = refused("embedded", &[], &[]);
    assert!(
        error.starts_with("data_dir is not set") && !error.contains("configuration file"),
        "{error}"
    );
}

#[test]
fn an_unknown_command_is_refused_and_every_known_one_has_help() {
    let error = refused("docter", &[], &[]);
    assert!(error.contains("unrecognized subcommand"), "{error}");
    for command in ["serve", "standalone", "embedded", "doctor", "demo"] {
        let error = refused(command, &["--help"], &[]);
        assert!(
            error.contains(&format!("Usage: flocker-csi {command}")),
            "{error}"
        );
    }
}

#[test]
fn an_era_is_given_for_the_number_of_a_node() {
    let era = "1b4e28ba-2fa1-4d2c-883f-0016d3cca427";
    let arguments = [
        "--data-dir=/data",
        "--nodes=2",
        &format!("--era=1={era}"),
        &format!("--era=2={era}"),
    ];
    let (cli, _) = read("embedded", &arguments, &[]).unwrap();
    let Command::Embedded(args) = cli.command else {
        panic!("{cli:?}")
    };
    assert_eq!(args.eras().into_keys().collect::<Vec<_>>(), [1, 2]);
    let error = refused("embedded", &["--data-dir=/data", "--era=one"], &[]);
    assert!(
        error.contains("expected the number of a node, = and a UUID"),
        "{error}"
    );
}

#[test]
fn the_line_feed_that_a_file_or_secret_leaves_at_the_end_of_a_variable_is_no_part_of_it() {
    let socket = Endpoint::Unix("/csi/csi.sock".into());
    for value in ["/csi/csi.sock\n", "unix:///csi/csi.sock\r\n"] {
        let config = serve(&[URL], &[("CSI_ENDPOINT", value)]);
        assert_eq!(config.plugin.endpoint, socket);
    }
    let config = serve(&[URL], &[("FLOCKER_CSI_STATE_DIR", "/state\n")]);
    assert_eq!(config.node.state_dir, Path::new("/state"));
    for flag in [
        "--endpoint=/csi.sock\n",
        "--state-dir=/state\n",
        "--endpoint=/c\tsi.sock",
    ] {
        let text = refused("serve", &[URL, flag], &[]);
        assert!(text.contains("control character"), "{text}");
    }
}

#[test]
fn topology_needs_a_name_that_labels_can_begin_with() {
    serve(
        &[URL, "--driver-name=Flocker.example.com", "--topology=hint"],
        &[],
    );
    serve(&[URL, "--driver-name=flocker..example"], &[]);
    for name in ["flocker..example", "flocker-.example", "flocker.-example"] {
        let name = format!("--driver-name={name}");
        let text = refused("serve", &[URL, &name, "--topology=hint"], &[]);
        assert!(text.contains("topology needs a driver_name"), "{text}");
    }
    let strict = refused("serve", &[URL, "--topology=strict"], &[]);
    assert!(strict.contains("off, hint"), "{strict}");
}

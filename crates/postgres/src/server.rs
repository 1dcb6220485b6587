//! Connection settings of a PostgreSQL database: parses its URL, and takes what the URL leaves out from environment
//! variables, the system and the password file. The rules are those of libpq (PostgreSQL manual, "Database Connection
//! Control Functions"), for one host and the parameters that are listed here.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host, SslMode, TargetSessionAttrs};

use crate::tls::{Tls, Verify};

/// Folders that are searched for the server's Unix socket if the URL names no host.
const SOCKETS: [&str; 3] = ["/var/run/postgresql", "/private/tmp", "/tmp"];
/// Parameters of other clients that are accepted and have no effect.
const IGNORED: [&str; 10] = [
    "client_encoding",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "load_balance_hosts",
    "sslcompression",
    "sslsni",
    "statement-cache-capacity",
];

/// Connection settings of a PostgreSQL database.
#[derive(Clone, Debug)]
pub struct Server {
    /// Host, port, user, password, database, options.
    pub config: Config,
    /// Verification of the server's certificate, and the client's certificate.
    pub tls: Tls,
}

/// Values that the URL sets, not yet checked; the driver's configuration is made from them.
#[derive(Default)]
struct Given {
    host: Option<String>,
    address: Option<String>,
    port: Option<String>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    mode: Option<String>,
    options: Vec<String>,
}

impl FromStr for Server {
    type Err = String;

    /// Parses a URL. Errors do not quote values, because a value may contain the password.
    fn from_str(url: &str) -> Result<Self, String> {
        let malformed = || "the postgres URL is malformed".to_owned();
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        // An unencoded `?` in the password: the rest of the password must not appear in an error as a parameter's name.
        if query.contains('@') {
            return Err(malformed());
        }
        let mut given = authority(address).ok_or_else(malformed)?;
        let mut server = Self { config: Config::new(), tls: Tls::default() };
        server.tls.roots = variable("PGSSLROOTCERT").map(PathBuf::from);
        server.tls.certificate = variable("PGSSLCERT").map(PathBuf::from);
        server.tls.key = variable("PGSSLKEY").map(PathBuf::from);
        given.options.extend(variable("PGOPTIONS"));
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(malformed)?;
            server.set(&mut given, name, decoded(value).ok_or_else(malformed)?)?;
        }
        server.complete(given)?;
        Ok(server)
    }
}

impl Server {
    /// Applies a parameter of the query string. Returns an error for an unknown parameter or an invalid value.
    fn set(&mut self, given: &mut Given, name: &str, value: String) -> Result<(), String> {
        let wrong = || format!("the postgres URL has an invalid value for `{name}`");
        match name {
            "host" => given.host = Some(value),
            "hostaddr" => given.address = Some(value),
            "port" => given.port = Some(value),
            "user" => given.user = Some(value),
            "password" => given.password = Some(value),
            "dbname" => given.database = Some(value),
            "sslmode" | "ssl-mode" => given.mode = Some(value.to_ascii_lowercase()),
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => self.tls.roots = Some(value.into()),
            "sslcert" | "ssl-cert" => self.tls.certificate = Some(value.into()),
            "sslkey" | "ssl-key" => self.tls.key = Some(value.into()),
            "options" => given.options.push(value),
            "application_name" => drop(self.config.application_name(value)),
            "connect_timeout" => {
                let seconds = value.parse().map_err(|_| wrong())?;
                if seconds > 0 {
                    self.config.connect_timeout(std::time::Duration::from_secs(seconds));
                }
            }
            "channel_binding" => drop(self.config.channel_binding(match value.as_str() {
                "disable" => ChannelBinding::Disable,
                "prefer" => ChannelBinding::Prefer,
                "require" => ChannelBinding::Require,
                _ => return Err(wrong()),
            })),
            "target_session_attrs" => drop(self.config.target_session_attrs(match value.as_str() {
                "any" => TargetSessionAttrs::Any,
                "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
                _ => return Err(wrong()),
            })),
            "keepalives_interval" => {
                let interval = std::time::Duration::from_secs(value.parse().map_err(|_| wrong())?);
                self.config.keepalives_interval(interval);
            }
            "keepalives_count" => drop(self.config.keepalives_retries(value.parse().map_err(|_| wrong())?)),
            "tcp_user_timeout" => {
                let limit = std::time::Duration::from_millis(value.parse().map_err(|_| wrong())?);
                self.config.tcp_user_timeout(limit);
            }
            "keepalives" => drop(self.config.keepalives(value != "0")),
            "keepalives_idle" => {
                let idle = std::time::Duration::from_secs(value.parse().map_err(|_| wrong())?);
                self.config.keepalives_idle(idle);
            }
            _ if IGNORED.contains(&name) => {}
            _ => match name.strip_prefix("options[").and_then(|name| name.strip_suffix(']')) {
                Some(name) => given.options.push(format!("-c {name}={}", escaped(&value))),
                None => return Err(format!("the postgres URL has an unknown parameter: `{name}`")),
            },
        }
        Ok(())
    }

    /// Applies the values of the URL, and takes missing ones from libpq's environment variables, the system and the
    /// password file.
    fn complete(&mut self, given: Given) -> Result<(), String> {
        let port = given.port.or_else(|| variable("PGPORT")).unwrap_or_else(|| "5432".to_owned());
        let port = port.parse().map_err(|_| "the port of the postgres URL is not a number".to_owned())?;
        let host = given.host.filter(|host| !host.is_empty()).or_else(|| variable("PGHOST"));
        let address = given.address.or_else(|| variable("PGHOSTADDR"));
        let host = host.or_else(|| address.clone()).unwrap_or_else(|| default_host(port));
        if host.contains(',') {
            return Err("the postgres URL has several hosts: use one name that always leads to the primary"
                .to_owned());
        }
        self.config.host(&host).port(port);
        if let Some(address) = address {
            let address = address.parse();
            self.config.hostaddr(
                address.map_err(|_| "`hostaddr` of the postgres URL is not an IP address".to_owned())?,
            );
        }
        let user = given.user.or_else(|| variable("PGUSER")).or_else(|| whoami::username().ok());
        let user = user
            .ok_or("the postgres URL has no user, and this process runs under an account without a name")?;
        self.config.user(&user);
        let database = given.database.filter(|name| !name.is_empty()).or_else(|| variable("PGDATABASE"));
        self.config.dbname(database.unwrap_or(user));
        given.options.iter().for_each(|option| self.add_option(option));
        self.set_mode(given.mode.or_else(|| variable("PGSSLMODE")).as_deref())?;
        let password = given.password.or_else(|| variable("PGPASSWORD"));
        if let Some(password) = password.or_else(|| self.password_in_file()) {
            self.config.password(password);
        }
        Ok(())
    }

    fn set_mode(&mut self, mode: Option<&str>) -> Result<(), String> {
        let (ssl, verify) = match mode {
            Some("disable") => (SslMode::Disable, Verify::Nothing),
            None | Some("allow" | "prefer") => (SslMode::Prefer, Verify::Nothing),
            // As in libpq, `require` with a root file means `verify-ca`.
            Some("require") if self.tls.roots.is_some() => (SslMode::Require, Verify::Authority),
            Some("require") => (SslMode::Require, Verify::Nothing),
            Some("verify-ca") => (SslMode::Require, Verify::Authority),
            Some("verify-full") => (SslMode::Require, Verify::Host),
            Some(_) => return Err("the postgres URL has an unknown sslmode".to_owned()),
        };
        self.config.ssl_mode(ssl);
        self.tls.verify = verify;
        Ok(())
    }

    /// Adds command-line options for the server's session, such as `-c jit=off`.
    pub fn add_option(&mut self, option: &str) {
        let options = match self.config.get_options() {
            Some(others) => format!("{others} {option}"),
            None => option.to_owned(),
        };
        self.config.options(options);
    }

    /// Returns the same settings for another host and port, such as a pooler's.
    pub fn at(&self, host: &str, port: u16) -> Self {
        let mut config = Config::new();
        config.host(host).port(port).ssl_mode(self.config.get_ssl_mode());
        config.channel_binding(self.config.get_channel_binding());
        config.target_session_attrs(self.config.get_target_session_attrs());
        config.keepalives(self.config.get_keepalives()).keepalives_idle(self.config.get_keepalives_idle());
        self.config.get_keepalives_interval().map(|interval| config.keepalives_interval(interval));
        self.config.get_keepalives_retries().map(|count| config.keepalives_retries(count));
        self.config.get_tcp_user_timeout().map(|limit| config.tcp_user_timeout(*limit));
        self.config.get_connect_timeout().map(|limit| config.connect_timeout(*limit));
        self.config.get_user().map(|user| config.user(user));
        self.config.get_password().map(|password| config.password(password));
        self.config.get_dbname().map(|database| config.dbname(database));
        self.config.get_options().map(|options| config.options(options));
        self.config.get_application_name().map(|name| config.application_name(name));
        Self { config, tls: self.tls.clone() }
    }

    /// Looks the password up in the password file (`PGPASSFILE`, or else `~/.pgpass`).
    fn password_in_file(&self) -> Option<String> {
        let home = || variable("HOME").map(|home| Path::new(&home).join(".pgpass"));
        let file = private(&variable("PGPASSFILE").map(PathBuf::from).or_else(home)?)?;
        let [host, port, database, user] =
            [self.host(), self.port().to_string(), self.database().to_owned(), self.user().to_owned()];
        file.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let (fields, password) = password_line(line)?;
            let is = |field: &str, value: &str| field == "*" || field == value;
            let is_host = is(&fields[0], &host) || host.starts_with('/') && fields[0] == "localhost";
            let fits = is_host && is(&fields[1], &port);
            (fits && is(&fields[2], &database) && is(&fields[3], &user)).then_some(password)
        })
    }

    /// Returns the host's name or address, or the folder of its Unix socket.
    pub fn host(&self) -> String {
        match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.config.get_ports().first().copied().unwrap_or(5432)
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        self.config.get_dbname().or(self.config.get_user()).unwrap_or_default()
    }
}

/// Parses the part of a URL before its query: user, password, host, port and database. None if it is malformed.
fn authority(address: &str) -> Option<Given> {
    let (scheme, rest) = address.split_once("://")?;
    if !["postgres", "postgresql"].contains(&scheme) {
        return None;
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match credentials.split_once(':') {
        Some((user, password)) => (user, Some(decoded(password)?)),
        None => (credentials, None),
    };
    // An IPv6 address stands in brackets.
    let (host, port) = match place.strip_prefix('[') {
        Some(place) => {
            let (host, port) = place.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let some = |text: &str| decoded(text).map(|text| Some(text).filter(|text| !text.is_empty()));
    Some(Given {
        host: some(host)?,
        port: port.filter(|port| !port.is_empty()).map(str::to_owned),
        user: some(user)?,
        password,
        database: some(database)?,
        ..Given::default()
    })
}

/// Decodes percent-encoding; none if the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok().map(String::from)
}

/// Returns the folder that has the server's Unix socket, or `localhost` if there is none.
fn default_host(port: u16) -> String {
    let has_socket = |folder: &&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    SOCKETS.into_iter().find(has_socket).unwrap_or("localhost").to_owned()
}

/// Reads a file that only its owner can access. None if others can access it, or if it cannot be read.
fn private(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let mode = file.metadata().ok()?.mode();
        if mode & 0o077 != 0 {
            tracing::warn!(
                "the password file of PostgreSQL is ignored: other users can read it; set its mode to 0600"
            );
            return None;
        }
    }
    let mut content = String::new();
    file.read_to_string(&mut content).ok()?;
    Some(content)
}

/// Parses a line of a password file: host, port, database and user, and the password. A backslash escapes the next
/// character.
fn password_line(line: &str) -> Option<([String; 4], String)> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let field = fields.last_mut()?;
        match character {
            '\\' => field.extend(characters.next()),
            ':' => fields.push(String::new()),
            _ => field.push(character),
        }
    }
    let [host, port, database, user, password] = <[String; 5]>::try_from(fields).ok()?;
    Some(([host, port, database, user], password))
}

/// Escapes backslashes and spaces in a setting's value, because the server splits options at spaces.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(' ', "\\ ")
}

/// Value of an environment variable; none if it is unset or empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_sets_every_part() {
        let url = "postgres://u%40x:p%3Aw@db.example:5433/name?sslmode=verify-full&sslrootcert=/ca.pem\
                   &options[search_path]=a%20b&options=-c%20jit%3Doff&application_name=x";
        let server: Server = url.parse().unwrap();
        assert_eq!(server.config.get_user(), Some("u@x"));
        assert_eq!(server.config.get_password(), Some(b"p:w".as_slice()));
        assert_eq!(server.config.get_options(), Some("-c search_path=a\\ b -c jit=off"));
        assert_eq!((server.config.get_ssl_mode(), server.tls.verify), (SslMode::Require, Verify::Host));
        let pooler = server.at("pooler.example", 6432);
        assert_eq!((pooler.host(), pooler.port()), ("pooler.example".to_owned(), 6432));
        assert_eq!((pooler.user(), pooler.database(), pooler.tls.verify), ("u@x", "name", Verify::Host));
    }

    #[test]
    fn parameters_override_the_authority() {
        let server: Server = "postgres://u@h:1/d?host=/run/pg&port=6432&user=v&dbname=e".parse().unwrap();
        assert_eq!((server.host().as_str(), server.port()), ("/run/pg", 6432));
        assert_eq!((server.user(), server.database()), ("v", "e"));
        assert_eq!((server.config.get_hosts().len(), server.config.get_ports().len()), (1, 1));
        let server: Server =
            "postgres://u@[::1]:5433/d?gssencmode=disable&channel_binding=require".parse().unwrap();
        assert_eq!((server.host().as_str(), server.port()), ("::1", 5433));
        let server: Server = "postgres://u@%2Frun%2Fpg/d?hostaddr=10.0.0.1".parse().unwrap();
        assert_eq!((server.host().as_str(), server.config.get_hosts().len()), ("/run/pg", 1));
    }

    #[test]
    fn require_with_a_root_file_checks_the_authority() {
        let server: Server = "postgres://u@h/d?sslmode=require&sslrootcert=/ca.pem".parse().unwrap();
        assert_eq!(server.tls.verify, Verify::Authority);
    }

    #[test]
    fn errors_name_the_fault_and_no_value() {
        for (url, fault) in [
            ("postgres://u:secret@h/x?sslmode=strange", "sslmode"),
            ("postgres://u:secret@h:port/x", "port"),
            ("postgres://u:secret@h/x?pool=secret", "`pool`"),
            ("postgres://u:secret@h/x?connect_timeout=secret", "`connect_timeout`"),
            ("postgres://u:secret@h/x?target_session_attrs=secret", "`target_session_attrs`"),
            ("postgres://u:secret@h,i/x", "several hosts"),
            ("postgres://u:secret@h/x?hostaddr=secret", "hostaddr"),
            ("postgres://u:secret@h/x?nothing", "malformed"),
            ("postgres://u:secret@[::1/x", "malformed"),
            ("mysql://u:secret@h/x", "malformed"),
            ("postgres://u:pa?secret=word@h/x", "malformed"),
        ] {
            let error = url.parse::<Server>().unwrap_err();
            assert!(error.contains(fault) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn lines_of_a_password_file() {
        let line = password_line("h\\:1:*:d:u:p\\\\w\\:").unwrap();
        assert_eq!(line, (["h:1", "*", "d", "u"].map(str::to_owned), "p\\w:".to_owned()));
        assert!(password_line("h:1:d:u").is_none());
    }
}

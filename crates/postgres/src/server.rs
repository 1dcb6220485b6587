//! How a PostgreSQL database is reached: what its URL says, and what it leaves out.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::tls::{Tls, Verify};

/// How a PostgreSQL database is reached.
#[derive(Clone, Debug)]
pub struct Server {
    /// Host, port, user, password, database, options.
    pub config: Config,
    /// How the server proves who it is.
    pub tls: Tls,
}

impl FromStr for Server {
    type Err = String;
    /// Reads a URL. The driver's own error may quote the password, so it is not passed on.
    fn from_str(url: &str) -> Result<Self, String> {
        let malformed = || "the postgres URL is malformed".to_owned();
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let mut tls = Tls::default();
        let (mut mode, mut options) = (variable("PGSSLMODE"), Vec::new());
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(malformed)?;
            let clear = || percent_encoding::percent_decode_str(value).decode_utf8().map(String::from);
            let clear = clear().map_err(|_| malformed())?;
            match name {
                "sslmode" | "ssl-mode" => mode = Some(clear.to_ascii_lowercase()),
                "sslrootcert" | "ssl-root-cert" | "ssl-ca" => tls.roots = Some(clear.into()),
                "sslcert" | "ssl-cert" => tls.certificate = Some(clear.into()),
                "sslkey" | "ssl-key" => tls.key = Some(clear.into()),
                "statement-cache-capacity" => {}
                _ => match name.strip_prefix("options[").and_then(|name| name.strip_suffix(']')) {
                    Some(name) => options.push(format!("-c {name}={}", escaped(&clear))),
                    None => rest.push(pair),
                },
            }
        }
        let url = if rest.is_empty() { address.to_owned() } else { format!("{address}?{}", rest.join("&")) };
        let config: Config = url.parse().map_err(|_| malformed())?;
        let mut server = Self { config, tls };
        server.set_mode(mode.as_deref())?;
        options.into_iter().for_each(|option| server.add_option(&option));
        server.complete();
        Ok(server)
    }
}

impl Server {
    fn set_mode(&mut self, mode: Option<&str>) -> Result<(), String> {
        let (ssl, verify) = match mode {
            Some("disable") => (SslMode::Disable, Verify::Nothing),
            None | Some("allow" | "prefer") => (SslMode::Prefer, Verify::Nothing),
            Some("require") => (SslMode::Require, Verify::Nothing),
            Some("verify-ca") => (SslMode::Require, Verify::Authority),
            Some("verify-full") => (SslMode::Require, Verify::Host),
            Some(_) => return Err("the postgres URL has an unknown sslmode".to_owned()),
        };
        self.config.ssl_mode(ssl);
        self.tls.verify = verify;
        Ok(())
    }

    /// Adds a setting of the session, such as `-c jit=off`.
    pub fn add_option(&mut self, option: &str) {
        let options = match self.config.get_options() {
            Some(others) => format!("{others} {option}"),
            None => option.to_owned(),
        };
        self.config.options(options);
    }

    /// The same database, user and TLS at another host, such as a pooler's.
    pub fn at(&self, host: &str, port: u16) -> Self {
        let mut config = Config::new();
        config.host(host).port(port).ssl_mode(self.config.get_ssl_mode());
        self.config.get_user().map(|user| config.user(user));
        self.config.get_password().map(|password| config.password(password));
        self.config.get_dbname().map(|database| config.dbname(database));
        self.config.get_options().map(|options| config.options(options));
        self.config.get_application_name().map(|name| config.application_name(name));
        Self { config, tls: self.tls.clone() }
    }

    /// What the URL leaves out comes from PostgreSQL's own variables and password file.
    fn complete(&mut self) {
        if self.config.get_hosts().is_empty() {
            self.config.host(variable("PGHOST").unwrap_or_else(|| "localhost".to_owned()));
        }
        if self.config.get_ports().is_empty()
            && let Some(port) = variable("PGPORT").and_then(|port| port.parse().ok())
        {
            self.config.port(port);
        }
        if self.config.get_user().is_none() {
            let user = variable("PGUSER").or_else(|| variable("USER"));
            self.config.user(user.unwrap_or_else(|| "postgres".to_owned()));
        }
        if self.config.get_dbname().is_none()
            && let Some(database) = variable("PGDATABASE")
        {
            self.config.dbname(database);
        }
        if self.config.get_password().is_none()
            && let Some(password) = variable("PGPASSWORD").or_else(|| self.password_in_file())
        {
            self.config.password(password);
        }
    }

    fn password_in_file(&self) -> Option<String> {
        let home = || variable("HOME").map(|home| Path::new(&home).join(".pgpass"));
        let file = std::fs::read_to_string(variable("PGPASSFILE").map(PathBuf::from).or_else(home)?).ok()?;
        let [host, port, database, user] =
            [self.host(), self.port().to_string(), self.database().to_owned(), self.user().to_owned()];
        file.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let (fields, password) = password_line(line)?;
            let is = |field: &str, value: &str| field == "*" || field == value;
            let fits = is(&fields[0], &host) && is(&fields[1], &port);
            (fits && is(&fields[2], &database) && is(&fields[3], &user)).then_some(password)
        })
    }

    /// The host's name or address, or the folder of its socket.
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

/// The four fields and the password of a line of a password file, in which a backslash takes the next character as it is.
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

/// A setting's value as the server splits it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(' ', "\\ ")
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_everything_that_it_can() {
        let url = "postgres://u%40x:p%3Aw@db.example:5433/name?sslmode=verify-full&sslrootcert=/ca.pem\
                   &options[search_path]=a%20b&options=-c%20jit%3Doff&application_name=x";
        let server: Server = url.parse().unwrap();
        assert_eq!(server.config.get_user(), Some("u@x"));
        assert_eq!(server.config.get_password(), Some(b"p:w".as_slice()));
        assert_eq!(server.config.get_options(), Some("-c jit=off -c search_path=a\\ b"));
        assert_eq!((server.config.get_ssl_mode(), server.tls.verify), (SslMode::Require, Verify::Host));
        let pooler = server.at("pooler.example", 6432);
        assert_eq!((pooler.host(), pooler.port()), ("pooler.example".to_owned(), 6432));
        assert_eq!((pooler.user(), pooler.database(), pooler.tls.verify), ("u@x", "name", Verify::Host));
        for url in ["postgres://u:secret@h/x?sslmode=strange", "postgres://u:secret@h:port/x"] {
            assert!(!url.parse::<Server>().unwrap_err().contains("secret"), "{url}");
        }
    }

    #[test]
    fn lines_of_a_password_file() {
        let line = password_line("h\\:1:*:d:u:p\\\\w\\:").unwrap();
        assert_eq!(line, (["h:1", "*", "d", "u"].map(str::to_owned), "p\\w:".to_owned()));
        assert!(password_line("h:1:d:u").is_none());
    }
}

//! Where connections come from.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// Where connections come from.
pub(crate) trait Accept: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection; `None` when there will be no more. Dropping the future loses none.
    fn accept(&mut self) -> impl Future<Output = io::Result<Option<Self::Stream>>> + Send;
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&mut self) -> io::Result<Option<Self::Stream>> {
        let (stream, _) = Self::accept(self).await?;
        // Small messages would wait for others; one that does not take it is slower, and no worse.
        drop(stream.set_nodelay(true));
        Ok(Some(stream))
    }
}

#[cfg(unix)]
pub(crate) use self::unix::UnixSocket;

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::io;
    use std::os::unix::fs::FileTypeExt;
    use std::path::{Path, PathBuf};

    use tokio::net::{UnixListener, UnixStream};

    use super::Accept;

    /// A Unix socket whose file is removed with it.
    #[derive(Debug)]
    pub(crate) struct UnixSocket {
        listener: UnixListener,
        path: PathBuf,
    }

    impl UnixSocket {
        /// Listens at `path`. A socket there that nobody listens on, as one that was killed leaves it, is replaced.
        pub(crate) async fn bind(path: &Path) -> io::Result<Self> {
            let listener = match UnixListener::bind(path) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left(path).await => {
                    fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                listener => listener?,
            };
            let path = path.to_owned();
            Ok(Self { listener, path })
        }
    }

    /// Whether there is a socket that nobody listens on.
    async fn is_left(path: &Path) -> bool {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        is_socket && UnixStream::connect(path).await.is_err_and(refused)
    }

    impl Drop for UnixSocket {
        fn drop(&mut self) {
            // It may be gone already, with its folder.
            drop(fs::remove_file(&self.path));
        }
    }

    impl Accept for UnixSocket {
        type Stream = UnixStream;

        async fn accept(&mut self) -> io::Result<Option<UnixStream>> {
            let (stream, _) = self.listener.accept().await?;
            Ok(Some(stream))
        }
    }

    impl Accept for UnixListener {
        type Stream = UnixStream;

        async fn accept(&mut self) -> io::Result<Option<UnixStream>> {
            let (stream, _) = Self::accept(self).await?;
            Ok(Some(stream))
        }
    }
}

//! The backend's side of the Link protocol: one ordered stream per gateway.

//! What clients are told of refused forms and uploads.

use axum::http::StatusCode;

use crate::attachments::{BodyEnd, Refused};
use crate::http::error::ApiError;

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLarge => TOO_LARGE,
            Refused::OverBudget(seconds) => Self::too_many(
                "attachment_quota",
                "this account has uploaded as much as it may today",
                seconds,
            ),
            Refused::Gone => Self::not_found(),
            Refused::Elsewhere { .. } => conflict("upload_offset", "the upload does not stand where this part begins"),
            Refused::Overtaken => conflict(
                "upload_overtaken",
                "another request writes to this upload, or it is gone",
            ),
            Refused::OtherLength => Self::unprocessable(
                "upload_length",
                "the upload has another length, or more bytes than that",
            ),
            Refused::Longer => Self::unprocessable("upload_longer", "more bytes came than the upload was said to have"),
            Refused::TooManyParts => Self::unprocessable("upload_parts", "the upload has too many small parts"),
            Refused::ChecksumWithoutLength => Self::bad_request(
                "upload_length",
                "with a checksum, say how long the upload is: Upload-Length",
            ),
            Refused::Checksum => match StatusCode::from_u16(460) {
                Ok(status) => Self::new(status, "upload_checksum", "the bytes are not those of the checksum"),
                Err(_) => Self::unprocessable("upload_checksum", "the bytes are not those of the checksum"),
            },
            Refused::OwnPlacesTaken => Self::too_many(
                "uploads_at_once",
                "this account writes to as many uploads as it may at once",
                BUSY_SECS,
            ),
            Refused::PlacesTaken => busy("uploads_busy", "too many uploads at once, try again"),
            Refused::Body(BodyEnd::Displaced) => {
                busy("uploads_busy", "too many uploads at once, go on when others are done")
            }
            Refused::DownloadsTaken => busy("downloads_busy", "too many downloads at once, try again"),
            Refused::Body(BodyEnd::Cut) => Self::bad_request("body_incomplete", "the body did not arrive whole"),
            Refused::Body(BodyEnd::Stalled) => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "upload_stalled",
                "the upload did not get on",
            ),
            Refused::Body(BodyEnd::Stopping) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "the server stops, go on with another",
            )
            .after(1),
            Refused::Storage(error) => error.into(),
            Refused::Blobs(error) => Self::unavailable(error.to_string()),
        }
    }
}

fn busy(code: &'static str, message: &'static str) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message).after(BUSY_SECS)
}

const fn conflict(code: &'static str, message: &'static str) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, code, message)
}

const TOO_LARGE: ApiError = ApiError::new(
    StatusCode::PAYLOAD_TOO_LARGE,
    "attachment_too_large",
    "attachments are not as large as this, or the form was made for less",
);
const BUSY_SECS: u64 = 5;

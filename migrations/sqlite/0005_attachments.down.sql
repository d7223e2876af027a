-- Takes back 0005_attachments.up.sql with all that is stored. The objects in the attachment store stay behind.
DROP TABLE attachment_budgets;
DROP TABLE attachment_segments;
DROP TABLE attachments;

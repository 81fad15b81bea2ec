-- What is old enough to be forgotten is found without looking through the rest.
CREATE INDEX email_outbox_over ON email_outbox (coalesce(sent_at, given_up_at)) WHERE coalesce(sent_at, given_up_at) IS NOT NULL;

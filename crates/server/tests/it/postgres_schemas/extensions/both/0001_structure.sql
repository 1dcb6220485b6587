SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: btree_gist; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public;


--
-- Name: EXTENSION btree_gist; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION btree_gist IS 'support for indexing common datatypes in GiST';


--
-- Name: citext; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;


--
-- Name: EXTENSION citext; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION citext IS 'data type for case-insensitive character strings';


--
-- Name: hstore; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;


--
-- Name: EXTENSION hstore; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION hstore IS 'data type for storing sets of (key, value) pairs';


--
-- Name: ltree; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS ltree WITH SCHEMA public;


--
-- Name: EXTENSION ltree; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION ltree IS 'data type for hierarchical tree-like structures';


--
-- Name: pg_trgm; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;


--
-- Name: EXTENSION pg_trgm; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION pg_trgm IS 'text similarity measurement and index searching based on trigrams';


--
-- Name: pgcrypto; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA public;


--
-- Name: EXTENSION pgcrypto; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION pgcrypto IS 'cryptographic functions';


--
-- Name: unaccent; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS unaccent WITH SCHEMA public;


--
-- Name: EXTENSION unaccent; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION unaccent IS 'text search dictionary that removes accents';


--
-- Name: uuid-ossp; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA public;


--
-- Name: EXTENSION "uuid-ossp"; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION "uuid-ossp" IS 'generate universally unique identifiers (UUIDs)';


CREATE DOMAIN public.email AS public.citext
	CONSTRAINT email_check CHECK ((VALUE OPERATOR(public.<>) 'root'::public.citext));


CREATE FUNCTION public.fold() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  NEW.folded := lower(unaccent(NEW.name));
  RETURN NEW;
END;
$$;


SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE public.members (
    tenant_id text NOT NULL,
    id uuid DEFAULT public.uuid_generate_v4() NOT NULL,
    email public.email NOT NULL,
    name text,
    folded text,
    tags public.hstore DEFAULT '"new"=>NULL'::public.hstore NOT NULL,
    place public.ltree,
    names public.citext[] DEFAULT '{}'::public.citext[] NOT NULL,
    token text DEFAULT encode(public.gen_random_bytes(8), 'hex'::text) NOT NULL
);

CREATE TABLE public.bookings (
    tenant_id text NOT NULL,
    id bigint NOT NULL,
    member_id uuid NOT NULL,
    room integer NOT NULL,
    during int4range NOT NULL
);

CREATE VIEW public.regulars WITH (security_invoker='true') AS
 SELECT members.id,
    members.email
   FROM public.members
  WHERE ((members.tags OPERATOR(public.?) 'regular'::text) AND ((members.email)::public.citext OPERATOR(public.=) 'zoe@example.com'::public.citext));

ALTER TABLE ONLY public.members
    ADD CONSTRAINT members_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY public.bookings
    ADD CONSTRAINT bookings_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY public.bookings
    ADD CONSTRAINT bookings_no_overlap EXCLUDE USING gist (tenant_id WITH =, room WITH =, during WITH &&);

CREATE UNIQUE INDEX index_members_on_email ON public.members USING btree (tenant_id, email);

CREATE INDEX index_members_on_name ON public.members USING gin (name public.gin_trgm_ops);

CREATE INDEX index_members_on_place ON public.members USING gist (place);

CREATE INDEX index_members_on_tags ON public.members USING gin (tags);

CREATE TRIGGER fold BEFORE INSERT OR UPDATE ON public.members FOR EACH ROW EXECUTE FUNCTION public.fold();

ALTER TABLE ONLY public.bookings
    ADD CONSTRAINT bookings_member FOREIGN KEY (tenant_id, member_id) REFERENCES public.members(tenant_id, id);

SET search_path TO "$user", public;

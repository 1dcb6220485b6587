CREATE TABLE "tags" (
	"id" serial NOT NULL,
	"name" text NOT NULL,
	"note_id" bigint,
	CONSTRAINT "tags_id_pk" PRIMARY KEY("id")
);
--> statement-breakpoint
ALTER TABLE "tags" ADD CONSTRAINT "tags_note_id_notes_id_fk" FOREIGN KEY ("note_id") REFERENCES "public"."notes"("id") ON DELETE no action ON UPDATE no action;